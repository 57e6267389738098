"""Where there is no GPU the kernels are interpreted; Triton reads this when the kernels are imported."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def device():
    """Where the kernels run in these tests."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

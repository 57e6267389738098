import pytest
import torch


@pytest.fixture(scope="session")
def device():
    """Where the kernels run in these tests."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

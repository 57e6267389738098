"""Shared by all tests: shapes are checked in every call into the package; real data sets if at hand."""

import os
from pathlib import Path

# Before torch is loaded: on tensors as small as these, threads only wait for each other. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from jaxtyping import install_import_hook

# Before any test module imports the package: annotated functions and dataclasses are checked when called.
install_import_hook("retrieval_cl", "shape_checks.checked")

# Before anything imports triton, which reads it once: without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def shared_data():
    """Gives the folder of a real data set by name; the test is skipped where it is not at hand."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    root = Path(os.environ.get("RETRIEVAL_CL_DATA", beside))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(
                f"data set '{name}' is not at hand: set RETRIEVAL_CL_DATA to the folder that holds it"
            )
        return root / name

    return folder

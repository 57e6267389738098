"""Shared by all tests: shapes are checked in every call into the package; real data sets if at hand."""

import os
import shutil
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
def image_run_once(tmp_path_factory):
    """A folder with tiny images, `colours`, and `run`, trained on them and indexed once; to read only."""
    from tiny_images import SMALL, write_images

    from retrieval_cl.config import load_image_config
    from retrieval_cl.runs.index_images import index_images
    from retrieval_cl.runs.models import find_model
    from retrieval_cl.runs.train_images import train_images

    folder = tmp_path_factory.mktemp("image_run")
    data = write_images(folder / "colours")
    config = load_image_config(None, [*SMALL, f"output={folder / 'run'}"], data=str(data))
    train_images(config, command="retrieval-cl train my.yaml")
    index_images(config, find_model(str(folder / "run")), output=folder / "run" / "index")
    return folder


@pytest.fixture
def image_run(image_run_once, tmp_path):
    """A copy of that run, with model/ and index/, to change."""
    return Path(shutil.copytree(image_run_once / "run", tmp_path / "image_run" / "run"))


@pytest.fixture(scope="session")
def clip_run_once(tmp_path_factory):
    """`run`, trained on digits with captions, and of it `images.index` and `captions.index`; to read only."""
    from tiny_clip import train_and_index

    return train_and_index(tmp_path_factory.mktemp("clip_run"))


@pytest.fixture
def clip_run(clip_run_once, tmp_path):
    """A copy of that folder, to change."""
    return Path(shutil.copytree(clip_run_once, tmp_path / "clip_run"))


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

import dataclasses
import errno
import resource
import shutil

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.training import checkpoint
from retrieval_cl.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    save_checkpoint,
    save_weights,
)


@pytest.fixture
def trained(whole, tmp_path):
    """A finished run and a copy of its checkpoints."""
    shutil.copytree(whole[1] / "checkpoints", tmp_path / "checkpoints")
    return dataclasses.replace(whole[0]), tmp_path / "checkpoints"


def test_only_the_newest_are_kept(trained):
    assert [step for step, _ in list_checkpoints(trained[1])] == [6, 9]


def test_nothing_is_pickled(trained):
    endings = {path.suffix for path in trained[1].rglob("*") if path.is_file()}
    assert endings == {".safetensors", ".json", ".npy"}
    for path in trained[1].rglob("*.npy"):
        assert b"'|O'" not in path.read_bytes()[:128]


def test_checkpoints_of_later_steps_are_dropped(trained):
    run, folder = trained
    run.step = 7
    save_checkpoint(folder, run, callbacks=[])
    assert [step for step, _ in list_checkpoints(folder)] == [6, 7]


def test_full_disk_leaves_the_old_checkpoint_and_nothing_half(trained, monkeypatch):
    run, folder = trained
    before = sorted(folder.rglob("*"))

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    run.step = 10
    for name in ("save_file", "save_model", "write_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, full)
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(folder, run, callbacks=[])
        assert sorted(folder.rglob("*")) == before


def test_write_that_fails_in_the_library_is_an_os_error(trained):
    run, folder = trained
    before = sorted(folder.rglob("*"))
    run.step = 10
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError):
            save_checkpoint(folder, run, callbacks=[])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(folder.rglob("*")) == before


def test_half_written_folder_is_no_checkpoint(trained, make_run):
    _, folder = trained
    (folder / ".step-00000099.part-1").mkdir()
    assert newest_checkpoint(folder).name == "step-00000009"
    (newest_checkpoint(folder) / "manifest.json").unlink()
    with pytest.raises(InputError, match="half written"):
        load_checkpoint(newest_checkpoint(folder), make_run()[0], callbacks=[])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_file_is_named(trained, make_run, name, damage):
    path = newest_checkpoint(trained[1]) / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=name):
        load_checkpoint(path.parent, make_run()[0], callbacks=[])


def test_folder_without_checkpoints_has_no_newest(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_missing_checkpoint_is_named(tmp_path, make_run):
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(tmp_path / "step-00000001", make_run()[0], callbacks=[])


def test_weights_alone_are_no_checkpoint(trained, make_run, tmp_path):
    save_weights(trained[0].method, tmp_path / "best")
    with pytest.raises(InputError, match="'weights', not a 'checkpoint'"):
        load_checkpoint(tmp_path / "best", make_run()[0], callbacks=[])
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(InputError, match="no such folder"):
        load_weights(trained[0].method, tmp_path / "best")

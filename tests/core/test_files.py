import errno
import hashlib
import json

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import (
    FORMAT_VERSION,
    MANIFEST,
    hash_file,
    new_file,
    new_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def contents(folder):
    """Every file below the folder, hidden ones too, with its text."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def make_old_folder(path):
    with new_folder(path) as part:
        (part / "vectors").write_text("old")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["disk", "ctrl-c"]
)
def test_an_error_inside_leaves_no_folder_under_the_final_name(tmp_path, error):
    with pytest.raises(type(error)), new_folder(tmp_path / "index") as part:
        (part / "vectors").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["disk", "ctrl-c"]
)
def test_an_error_inside_leaves_the_old_folder_as_it_was(tmp_path, error):
    make_old_folder(tmp_path / "index")
    with pytest.raises(type(error)), new_folder(tmp_path / "index") as part:
        (part / "vectors").write_text("half")
        raise error
    assert contents(tmp_path) == {"index/vectors": "old"}


def test_a_disk_that_fills_at_the_sync_leaves_the_old_folder(tmp_path, monkeypatch):
    make_old_folder(tmp_path / "index")
    monkeypatch.setattr("retrieval_cl.core.files.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "index") as part:
        (part / "vectors").write_text("new")
    assert contents(tmp_path) == {"index/vectors": "old"}


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    make_old_folder(tmp_path / "index")
    path_type = type(tmp_path)
    rename = path_type.rename

    def fail_for_the_new(self, target):
        if ".part-" in self.name:
            disk_full()
        return rename(self, target)

    monkeypatch.setattr(path_type, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "index") as part:
        (part / "vectors").write_text("new")
    assert contents(tmp_path) == {"index/vectors": "old"}


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    make_old_folder(tmp_path / "index")
    with new_folder(tmp_path / "index") as part:
        (part / "texts").write_text("new")
    assert contents(tmp_path) == {"index/texts": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_a_folder_is_made_with_its_parents(tmp_path):
    with new_folder(tmp_path / "runs" / "one") as part:
        (part / "a").write_text("x")
    assert contents(tmp_path) == {"runs/one/a": "x"}


def test_an_error_inside_leaves_no_file_and_the_old_one_as_it_was(tmp_path):
    for old in ({}, {"table": "old"}):
        for name, text in old.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(OSError, match="No space left"), new_file(tmp_path / "table") as part:
            part.write_text("half")
            disk_full()
        assert contents(tmp_path) == old


def test_a_new_file_replaces_the_old_one(tmp_path):
    (tmp_path / "table").write_text("old")
    with new_file(tmp_path / "table") as part:
        part.write_text("new")
        assert (tmp_path / "table").read_text() == "old"
    assert contents(tmp_path) == {"table": "new"}


def test_json_comes_back_as_it_went_in(tmp_path):
    value = {"größe": [1, 2.5, None], "name": "ü"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf8")


def test_nan_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'{"a": 1,\n"b" 2}', "line 2: broken JSON"), (b'{"a": "\xff"}', "not UTF-8 at byte 7")],
)
def test_broken_json_is_named_by_file_and_place(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        read_json(tmp_path / "nothing.json")


def test_a_manifest_comes_back_with_its_fields(tmp_path):
    write_manifest(tmp_path, "index", dim=64)
    assert read_manifest(tmp_path, "index") == {"kind": "index", "format_version": FORMAT_VERSION, "dim": 64}


def test_a_missing_folder_and_a_half_written_one_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(tmp_path / "index", "index")
    with pytest.raises(InputError, match=f"no {MANIFEST}"):
        read_manifest(tmp_path, "index")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"kind": "table", "format_version": FORMAT_VERSION}, "this is a 'table', not a 'index'"),
        ([1, 2], "this is a 'list', not a 'index'"),
        ({"kind": "index", "format_version": 99}, "format_version 99"),
        ({"kind": "index"}, "format_version None"),
    ],
)
def test_a_manifest_of_another_kind_or_format_is_refused(tmp_path, manifest, message):
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path, "index")


def test_the_hash_is_that_of_the_bytes(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert hash_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()

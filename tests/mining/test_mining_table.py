"""The table of negatives comes back from disk as it was, or not at all."""

import json

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_manifest, write_json
from retrieval_cl.mining.table import SOURCES, NegativeTable


@pytest.fixture
def table():
    return NegativeTable(
        round=3,
        queries=np.array([7, 2, 11]),
        rows=np.array([[4, 5], [1, -1], [-1, -1]]),
        scores=np.array([[0.5, 0.25], [-0.125, -np.inf], [-np.inf, -np.inf]], dtype=np.float32),
        ranks=np.array([[0, 4], [9, -1], [-1, -1]], dtype=np.int32),
        sources=np.array([[0, 1], [0, -1], [-1, -1]], dtype=np.int8),
    )


def test_loaded_table_equals_the_saved_one_and_is_mapped(table, tmp_path):
    table.save(tmp_path / "negatives", model="abc", seed=5)
    loaded = NegativeTable.load(tmp_path / "negatives")
    assert loaded.round == 3 and len(loaded) == 3 and loaded.num_negatives == 2
    for name in ("queries", "rows", "scores", "ranks", "sources"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(table, name))
        assert isinstance(getattr(loaded, name), np.memmap)
    manifest = read_manifest(tmp_path / "negatives", "negative_table")
    assert manifest["made_by"] == {"model": "abc", "seed": 5}
    assert manifest["source_names"] == list(SOURCES)


def test_row_of_finds_queries_and_says_where_there_are_none(table, tmp_path):
    wanted = np.array([11, 0, 7, 2, 99, -1, 7])
    table.save(tmp_path / "negatives")
    for one in (table, NegativeTable.load(tmp_path / "negatives")):
        assert one.row_of(wanted).tolist() == [2, -1, 0, 1, -1, -1, 0]


def test_changed_file_is_refused(table, tmp_path):
    table.save(tmp_path / "negatives")
    path = tmp_path / "negatives" / "rows.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"rows\.npy.*SHA-256"):
        NegativeTable.load(tmp_path / "negatives")


def test_missing_file_is_named(table, tmp_path):
    table.save(tmp_path / "negatives")
    (tmp_path / "negatives" / "ranks.npy").unlink()
    with pytest.raises(InputError, match=r"ranks\.npy"):
        NegativeTable.load(tmp_path / "negatives")


@pytest.mark.parametrize("key", ["round", "sha256", "source_names"])
def test_manifest_without_a_key_is_refused(table, tmp_path, key):
    table.save(tmp_path / "negatives")
    path = tmp_path / "negatives" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    write_json(path, manifest)
    with pytest.raises(InputError, match=key):
        NegativeTable.load(tmp_path / "negatives")


def test_failed_save_leaves_the_old_table(table, tmp_path, monkeypatch):
    table.save(tmp_path / "negatives", version=1)

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_cl.mining.table.write_manifest", full_disk)
    with pytest.raises(OSError, match="No space left"):
        table.save(tmp_path / "negatives", version=2)
    assert read_manifest(tmp_path / "negatives", "negative_table")["made_by"] == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["negatives"]

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import kill_when, tree

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.fill import encode_into_store
from retrieval_cl.indexing.shards import Recipe, open_store, row_keys

RECIPE = Recipe("weights-1", 4, "float32", shard_rows=10)


def vector(text, *, salt=""):
    numbers = np.frombuffer(hashlib.sha256((salt + text).encode()).digest()[:16], dtype=np.uint32)
    return (numbers / 2**32 - 0.5).astype(np.float32)


class Encoder:
    """Counts what it is given; its vectors depend on the text alone."""

    def __init__(self, salt=""):
        self.seen, self._salt = [], salt

    def __call__(self, texts):
        self.seen.extend(texts)
        return np.stack([vector(text, salt=self._salt) for text in texts])


def fill(folder, texts, *, recipe=RECIPE, salt=""):
    encoder = Encoder(salt)
    store, done = encode_into_store(folder, texts, encode=encoder, recipe=recipe)
    assert len(encoder.seen) <= done.encoded
    assert done.encoded + done.copied + done.kept == len(texts) == len(store)
    return store, encoder.seen


def values(store):
    return torch.cat([*store.shards, torch.empty(0, store.recipe.dim)]).numpy()


TEXTS = [f"text {number}" for number in range(34)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_store_holds_each_texts_vector_in_its_dtype(tmp_path, dtype):
    store, seen = fill(tmp_path / "s", TEXTS, recipe=replace(RECIPE, dtype=dtype))
    assert seen and [len(shard) for shard in store.shards] == [10, 10, 10, 4]
    expected = torch.from_numpy(np.stack([vector(text) for text in TEXTS])).to(getattr(torch, dtype))
    assert torch.equal(torch.cat(store.shards), expected)
    np.testing.assert_array_equal(store.keys(), row_keys(TEXTS))
    hits = exact.search(store.shards, store.shards, k=1)
    assert hits.scores.shape == (34, 1)


def test_second_time_nothing_is_encoded_or_written(tmp_path):
    fill(tmp_path / "s", TEXTS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    assert fill(tmp_path / "s", TEXTS)[1] == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_only_missing_or_changed_texts_are_encoded(tmp_path, dtype):
    recipe = replace(RECIPE, dtype=dtype)
    fill(tmp_path / "s", TEXTS, recipe=recipe)
    changed = ["new first", *TEXTS[:3], "changed", *TEXTS[5:], "new last", TEXTS[4], "changed"]
    store, seen = fill(tmp_path / "s", changed, recipe=recipe)
    assert sorted(seen) == ["changed", "changed", "new first", "new last"]
    assert tree(tmp_path / "s") == tree(fill(tmp_path / "fresh", changed, recipe=recipe)[0].folder)
    assert len(store) == 37


def test_other_salt_shows_that_copied_rows_are_the_old_ones(tmp_path):
    fill(tmp_path / "s", TEXTS)
    store, seen = fill(tmp_path / "s", [*TEXTS[:33], "x"], salt="other")
    assert seen == ["x"]
    np.testing.assert_array_equal(values(store)[:33], [vector(text) for text in TEXTS[:33]])
    np.testing.assert_array_equal(values(store)[33], vector("x", salt="other"))


@pytest.mark.parametrize("change", [{"fingerprint": "weights-2"}, {"dtype": "float16"}])
def test_changed_recipe_misses(tmp_path, change):
    fill(tmp_path / "s", TEXTS)
    other = replace(RECIPE, **change)
    assert open_store(tmp_path / "s", recipe=other) is None
    assert sorted(fill(tmp_path / "s", TEXTS, recipe=other)[1]) == sorted(TEXTS)
    assert open_store(tmp_path / "s", recipe=RECIPE) is None


def test_other_shard_size_copies_every_row(tmp_path):
    fill(tmp_path / "s", TEXTS)
    store, seen = fill(tmp_path / "s", TEXTS, recipe=replace(RECIPE, shard_rows=7))
    assert seen == [] and [len(shard) for shard in store.shards] == [7, 7, 7, 7, 6]
    np.testing.assert_array_equal(values(store), [vector(text) for text in TEXTS])


def test_empty_corpus_and_equal_texts(tmp_path):
    assert len(fill(tmp_path / "none", [])[0]) == 0
    store, seen = fill(tmp_path / "same", ["a"] * 12)
    assert seen == ["a", "a"]
    np.testing.assert_array_equal(values(store), [vector("a")] * 12)


def test_encoder_that_fails_loses_one_shard_and_leaves_the_old_store(tmp_path):
    fill(tmp_path / "s", ["old"])
    calls = []

    def failing(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise RuntimeError("no power")
        return Encoder()(texts)

    with pytest.raises(RuntimeError, match="no power"):
        encode_into_store(tmp_path / "s", TEXTS, encode=failing, recipe=RECIPE)
    np.testing.assert_array_equal(values(open_store(tmp_path / "s", recipe=RECIPE)), [vector("old")])
    assert sorted(fill(tmp_path / "s", TEXTS)[1]) == sorted(TEXTS[20:])


def test_number_too_large_for_the_dtype_is_refused(tmp_path):
    def large(texts):
        return np.full((len(texts), 4), 1e5, dtype=np.float32)

    with pytest.raises(InputError, match="not finite in float16; store them as float32"):
        encode_into_store(tmp_path / "s", ["a"], encode=large, recipe=replace(RECIPE, dtype="float16"))


@pytest.mark.parametrize("name", ["vectors.npy", "keys.npy", "manifest.json"])
def test_store_with_a_broken_shard_is_never_read(tmp_path, name):
    fill(tmp_path / "s", TEXTS)
    path = tmp_path / "s" / "shard-00002" / name
    if name == "vectors.npy":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        path.unlink()
    with pytest.raises(InputError, match="shard-00002: missing, cut or of another store"):
        open_store(tmp_path / "s")


CHILD = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]
import test_fill
class Slow(test_fill.Encoder):
    def __call__(self, texts):
        time.sleep(0.02)
        return super().__call__(texts)
print("ready", flush=True)
test_fill.encode_into_store(Path(sys.argv[1]), test_fill.MANY, encode=Slow(), recipe=test_fill.RECIPE)
"""
MANY = [f"text {number % 90}" for number in range(200)]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path):
    expected = tree(fill(tmp_path / "whole", MANY)[0].folder)
    rng = np.random.default_rng()
    arguments = (tmp_path / "s", Path(__file__).parent)
    shards = 0
    for _ in range(3):
        kill_when(CHILD, arguments, wait=lambda: time.sleep(rng.uniform(0.0, 0.25)))
        now = len(list((tmp_path / ".s.next").glob("shard-*"))) if (tmp_path / ".s.next").exists() else 0
        assert now >= shards or (tmp_path / "s").exists()
        shards = now
    _, seen = fill(tmp_path / "s", MANY)
    assert len(seen) <= 10 * (20 - shards)
    assert tree(tmp_path / "s") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "whole"]


def test_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    fill(tmp_path / "s", TEXTS[:5])
    rename = Path.rename

    def stop_at_the_new_one(path, target):
        if path.name == ".s.next":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop_at_the_new_one)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "s", TEXTS)
    monkeypatch.undo()
    assert not (tmp_path / "s").exists()
    assert fill(tmp_path / "s", TEXTS)[1] == []
    assert tree(tmp_path / "s") == tree(fill(tmp_path / "fresh", TEXTS)[0].folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "s"]

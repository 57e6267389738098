"""`mine --store` and `index --store`: what they leave is as without, and nothing is encoded twice."""

import json
import time

import numpy as np
import pytest
from killed import kill_when, tree

from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.indexing.shards import open_store
from retrieval_cl.runs import kept_vectors

PASSAGES, QUERIES = 48, 80


@pytest.fixture
def encoded(monkeypatch):
    """The texts that are encoded from here on. The plan's probe embeds tokens, which are none."""
    seen, encode = [], TextEncoder.encode

    def count(self, inputs, **options):
        seen.extend(inputs if isinstance(inputs, list) else ())
        return encode(self, inputs, **options)

    monkeypatch.setattr(TextEncoder, "encode", count)
    return seen


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(kept_vectors, "SHARD_ROWS", 5)


def results(out):
    """All that mining leaves but what tells of time."""
    return tree(out / "negatives") | {"texts": (out / "triplets.jsonl").read_bytes()}


def mined(cli, trained, out, *further):
    ran = cli("mine", trained, "-o", out, *further)
    assert ran.code == 0, ran.err
    return results(out), ran


@pytest.mark.parametrize("rows", [5, 8192])
def test_negatives_are_the_same_bits_as_without_a_store_and_encoded_once(
    cli, trained, tmp_path, encoded, monkeypatch, rows
):
    monkeypatch.setattr(kept_vectors, "SHARD_ROWS", rows)
    without, _ = mined(cli, trained, tmp_path / "without")
    assert encoded == []
    store = ("--store", tmp_path / "vectors")
    first, ran = mined(cli, trained, tmp_path / "first", *store)
    assert first == without and len(encoded) == PASSAGES + QUERIES
    assert f"passages: {PASSAGES} embedded, 0 kept" in ran.err
    again, ran = mined(cli, trained, tmp_path / "again", *store)
    assert again == without and len(encoded) == PASSAGES + QUERIES
    assert f"queries: 0 embedded, {QUERIES} kept" in ran.err
    assert sorted(path.name for path in (tmp_path / "vectors").iterdir()) == ["passages", "queries"]


def test_mine_and_index_share_the_passages_and_the_index_is_the_same_bytes(cli, trained, tmp_path, encoded):
    store = ("--store", tmp_path / "vectors")
    assert cli("index", trained, "-o", tmp_path / "without").code == 0
    assert len(encoded) == PASSAGES
    mined(cli, trained, tmp_path / "out", *store)
    encoded.clear()
    ran = cli("index", trained, "-o", tmp_path / "with", *store)
    assert ran.code == 0 and encoded == [], ran.err
    assert tree(tmp_path / "with") == tree(tmp_path / "without")


def test_changed_texts_alone_are_encoded_anew(cli, trained, tmp_path, encoded):
    store = ("--store", tmp_path / "vectors")
    mined(cli, trained, tmp_path / "out", *store)
    path = trained.parent / "beir" / "corpus.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[7]["text"], rows[30]["title"] = "def another(path): return 7", "another title"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoded.clear()
    data = ("--data", path.parent)
    changed, _ = mined(cli, trained, tmp_path / "changed", *data, *store)
    wanted = [f"{rows[row]['title']}\n{rows[row]['text']}" for row in (7, 30)]
    assert sorted(encoded) == sorted(wanted)
    assert changed == mined(cli, trained, tmp_path / "without", *data)[0]


def test_one_changed_weight_misses(cli, trained, tmp_path, encoded):
    store = ("--store", tmp_path / "vectors")
    mined(cli, trained, tmp_path / "out", *store)
    encoder = load_encoder(str(trained / "model"))
    encoder.model[0].embedding.weight.data[-1, -1] += 1e-3
    encoder.save(trained / "model")
    encoded.clear()
    ran = cli("index", trained, "-o", tmp_path / "index", *store)
    assert ran.code == 0 and len(encoded) == PASSAGES, ran.err


CHILD = """
import sys, time
from retrieval_cl import app
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.runs import kept_vectors
encode = TextEncoder.encode
def slow(self, inputs, **options):
    time.sleep(0.1 if isinstance(inputs, list) else 0)
    return encode(self, inputs, **options)
TextEncoder.encode, kept_vectors.SHARD_ROWS = slow, 5
print("ready", flush=True)
app.main()
"""


@pytest.mark.slow
def test_killed_while_it_encodes_it_goes_on_to_the_same_bytes(cli, trained, tmp_path, encoded, small_shards):
    folder, fresh = tmp_path / "vectors", tmp_path / "fresh"
    without, _ = mined(cli, trained, tmp_path / "without", "--store", fresh)
    encoded.clear()
    rng, done = np.random.default_rng(), {}
    for name in ("queries", "passages"):

        def wait(work=folder / f".{name}.next"):
            end = time.monotonic() + 300
            while not list(work.glob("shard-*")):
                assert time.monotonic() < end, "no shard in five minutes"
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))

        arguments = ("mine", trained, "-o", tmp_path / "out", "--store", folder)
        assert kill_when(CHILD, arguments, wait=wait)
        assert not (tmp_path / "out").exists() and not (folder / name).exists()
        done[name] = len(list((folder / f".{name}.next").glob("shard-*")))
    out, _ = mined(cli, trained, tmp_path / "out", "--store", folder)
    assert len(encoded) == PASSAGES - 5 * done["passages"] < PASSAGES
    assert out == without and tree(folder) == tree(fresh)
    assert len(open_store(folder / "passages").shards) == 10


def test_a_place_that_is_none_for_a_store_is_refused_before_the_work(cli, trained, tmp_path, encoded):
    (tmp_path / "file").write_text("")
    for command in ("mine", "index"):
        ran = cli(command, trained, "-o", tmp_path / "out", "--store", tmp_path / "file")
        assert ran.code == 2 and "file: a file stands there; name a folder" in ran.line
        ran = cli(command, trained, "-o", tmp_path / "out", "--store", trained / "index")
        assert ran.code == 2 and "is a store or an index itself; name a folder" in ran.line
    ran = cli("index", trained, "-o", tmp_path / "out", "--store", tmp_path / "out" / "vectors")
    assert ran.code == 2 and "which will be replaced" in ran.line
    assert encoded == [] and not (tmp_path / "out").exists()


def test_a_dry_run_says_that_kept_vectors_cost_nothing_and_keeps_none(cli, trained, tmp_path):
    ran = cli("mine", trained, "--plan", "--store", tmp_path / "vectors")
    assert ran.code == 0 and ran.out.splitlines()[-1].endswith("vectors holds is not encoded again")
    assert not (tmp_path / "vectors").exists()

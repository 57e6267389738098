"""Under two ranks encoding, searching and scoring are shared, and nothing that comes of it changes."""

import json
from pathlib import Path

import pytest
import rank_runs
import torch.multiprocessing as mp
from tiny_beir import write_tiny

from retrieval_cl.core import shares
from retrieval_cl.runs.train import encoder_for
from retrieval_cl.sources.load import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    write_tiny(folder / "beir")
    config = rank_runs.config_of(folder)
    encoder_for(config, load(config.source)).save(folder / "model")
    rank_runs.write_stored(folder)
    mp.spawn(rank_runs.work, args=(folder,), nprocs=2)
    return folder


def test_runs_by_shares_end_in_the_bits_of_runs_where_each_rank_does_all(two):
    assert (two / "done-0").exists() and (two / "done-1").exists()


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("mine", "mined"),
    [
        (rank_runs.mine_texts, "mined"),
        (rank_runs.mine_kept, "mined-kept"),
        (rank_runs.mine_stored, "mined-stored"),
    ],
)
def test_two_ranks_mine_the_files_of_one_process(two, monkeypatch, mine, mined):
    monkeypatch.setattr(shares, "MIN_ROWS", 4)
    alone = mine(two, two / f"{mined}-alone")
    assert alone.rows > 0
    found, expected = files_of(two / mined), files_of(two / f"{mined}-alone")
    assert found.keys() == expected.keys() and len(found) > 6
    for name in found:
        if name.suffix in (".npy", ".jsonl"):
            assert found[name] == expected[name], name
    name = Path("mining.json")
    first, second = json.loads(found[name]), json.loads(expected[name])
    for key in ("counts", "rows", "pairs_left_out", "audit", "estimates", "advice"):
        assert first[key] == second[key], key


def test_two_ranks_keep_the_vectors_that_one_process_keeps(two):
    rank_runs.mine_kept(two, two / "kept-alone")
    found = files_of(two / "mined-kept-store")
    assert found == files_of(two / "kept-alone-store") and len(found) > 20
    texts = Path("tuples.jsonl")
    assert files_of(two / "kept-alone")[texts] == files_of(two / "mined")[texts]

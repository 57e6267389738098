"""Two ranks end a round together, and swap in one table together, or fail together."""

import json

import numpy as np
import pytest
import rank_cases
import tiny_run
import torch
import torch.multiprocessing as mp

from retrieval_cl.core.files import new_folder, write_manifest
from retrieval_cl.runs.background import KIND, BackgroundMiner
from retrieval_cl.training.background import BackgroundFailed, InlineWorker
from retrieval_cl.training.callbacks import Remine
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.trainer import train

pytestmark = pytest.mark.slow
DRIFT = {"rounds": 2, "steps": 12, "remine_every": 4, "probe_every": 2, "min_overlap": 0.5}
BESIDE = {"rounds": 2, "steps": 8, "background": True, "swap_after": 2}


class Miner:
    """Stands in for the miner of rounds and for the encoder: the table is a function of the round."""

    def task(self, run, previous):
        return None

    def note(self, run, facts):
        self.noted = facts

    def save(self, folder):
        folder.mkdir()


def write_table(given, job):
    generator = np.random.default_rng(job.round)
    rows = np.stack([generator.permutation(tiny_run.NUM_PASSAGES)[:3] for _ in range(tiny_run.NUM_QUERIES)])
    shape = rows.shape
    table = tiny_run.NegativeTable(
        job.round,
        np.arange(tiny_run.NUM_QUERIES),
        rows,
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.int32),
        np.zeros(shape, dtype=np.int8),
    )
    with new_folder(job.folder / "mined") as part:
        table.save(part / "table")
        np.save(part / "probe_hits.npy", rows)
        write_manifest(part, KIND, round=job.round)
    return f"round {job.round}"


def fail(given, job):
    raise MemoryError("no room")


def weights(run):
    return {name: value.clone() for name, value in run.method.state_dict().items()}


def work(rank, folder):
    with rank_cases.joined(rank, world=2, folder=folder):
        # Rank 1 alone sees drift, at step 8.
        run, source = tiny_run.build_run(**DRIFT)
        log = MetricsLog(folder / "drift.jsonl")
        probe = lambda run: np.array([[int(rank == 1 and run.step >= 8)]])  # noqa: E731
        train(run, source, callbacks=[Remine(tiny_run.mine_hardest, log, probe=probe)])
        found = {"rounds": run.round_steps, "drift": weights(run)}
        run, source = tiny_run.build_run(**BESIDE)
        train(run, source, callbacks=[beside(folder / "beside", write_table)])
        found |= {"table": torch.from_numpy(np.array(run.negatives.rows)), "beside": weights(run)}
        run, source = tiny_run.build_run(**BESIDE)
        with pytest.raises(BackgroundFailed) as failure:
            train(run, source, callbacks=[beside(folder / "fails", fail)])
        found |= {"failed_at": run.step, "line": str(failure.value)}
        torch.save(found, folder / f"rank-{rank}.pt")


def beside(folder, job):
    miner, log = Miner(), MetricsLog(folder / "metrics.jsonl")
    make = lambda given, run: InlineWorker(job, given)  # noqa: E731
    aside = BackgroundMiner(miner, miner, probe=None, folder=folder, log=log, make_worker=make)
    return Remine(tiny_run.mine_hardest, log, aside=aside)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(folder,), nprocs=2)
    return folder, [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_same_bits(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_drift_that_one_rank_sees_ends_the_round_of_both(two):
    folder, (first, second) = two
    assert first["rounds"] == second["rounds"] == (6, 2, 4)
    assert_same_bits(first["drift"], second["drift"])
    lines = [json.loads(line) for line in (folder / "drift.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("remines")] == [8]


def test_both_ranks_get_the_table_that_one_has_mined(two):
    _, (first, second) = two
    assert torch.equal(first["table"], second["table"])
    assert_same_bits(first["beside"], second["beside"])


def test_both_ranks_stop_where_the_miner_of_one_fails(two):
    _, (first, second) = two
    assert first["failed_at"] == second["failed_at"] == 3
    assert first["line"] == "mining in the background failed: MemoryError: no room"
    assert second["line"] == "mining in the background failed on rank 0; see its line"

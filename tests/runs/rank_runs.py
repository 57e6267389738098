"""What each of two ranks does: trains with mining in shares, with each doing all of it, beside a failure."""

import json
import os
import sys
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from tiny_beir import SMALL

from retrieval_cl.config import load_config
from retrieval_cl.core import shares
from retrieval_cl.core.errors import InputError, RankFailed
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.runs import background, dual_encoder, kept_vectors, mine, mine_vectors, rounds
from retrieval_cl.runs.background import mine_snapshot
from retrieval_cl.runs.mine_result import MineOptions
from retrieval_cl.runs.prepare import prepare_text
from retrieval_cl.runs.rounds import RoundTask
from retrieval_cl.runs.sharing import Alone, over_all_ranks
from retrieval_cl.runs.train import encoder_for
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.sources.load import load
from retrieval_cl.training.background import InlineWorker

COLUMNS = ("queries", "rows", "scores", "ranks", "sources")
ROUNDS = ("training.rounds=3", "training.precision=fp32", "evaluation.keep=last")
RUNS = {
    "rounds": ROUNDS,
    "drift": (
        *ROUNDS,
        "training.remine_every=6",
        "training.probe_every=2",
        "training.min_overlap=0.6",
        "mining.depth=6",
    ),
    "refresh": (*ROUNDS, "training.refresh=candidates", "training.probe_passages=24", "mining.depth=6"),
    "background": (*ROUNDS, "training.remine_every=3", "training.background=true", "training.swap_after=2"),
}
CLOCKS = {
    "seconds",
    "pairs_per_second",
    "snapshot_seconds",
    "waited_seconds",
    "mining_seconds",
    "probe_seconds",
    "refresh_seconds",
    "leak_check_seconds",
}


def work(rank, folder):
    """Everything below, in one group of ranks."""
    with joined(rank, folder):
        patch = pytest.MonkeyPatch()
        # The tiny corpus in several windows.
        patch.setattr(shares, "MIN_ROWS", 4)
        for name, settings in RUNS.items():
            with patch.context() as here:
                here.setattr(background, "_spawn", inline)
                run = train(folder, f"{name}-shares", *settings)
                here.setattr(dual_encoder, "over_all_ranks", lambda link: Alone())
                alone = train(folder, f"{name}-alone", *settings)
            assert run.encoder.fingerprint() == alone.encoder.fingerprint(), name
            assert lines_of(run) == lines_of(alone) and len(run.rounds) == len(alone.rounds), name
        check_shares(folder, patch)
        check_reranker()
        check_failures(folder, rank)
        check_no_snapshot(folder, rank)
        mine_texts(folder, folder / "mined")
        mine_kept(folder, folder / "mined-kept")
        mine_stored(folder, folder / "mined-stored")
        # The last of `RUNS`, once more, by a process of its own.
        spawned = train(folder, "spawned", *RUNS["background"])
        assert spawned.encoder.fingerprint() == run.encoder.fingerprint()
        (folder / f"done-{rank}").touch()


@contextmanager
def joined(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    yield
    dist.destroy_process_group()
    # Threads of the group may outlive it, and then the interpreter's end aborts with all done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def inline(given, run):
    return InlineWorker(mine_snapshot, given)


def config_of(folder, *settings):
    return load_config(None, [*SMALL, *settings], data=str(folder / "beir"))


def train(folder, name, *settings):
    config = config_of(folder, *settings)
    data = load(config.source)
    tower = encoder_for(config, data)
    return dual_encoder.train_dual_encoder(
        prepare_text(data, tower),
        tower,
        method=config.method,
        mining=config.mining,
        training=config.training,
        evaluation=config.evaluation,
        output=folder / name,
    )


def lines_of(run):
    dist.barrier()
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in records]


def check_shares(folder, patch):
    """Each rank encodes half of the rows, and the table is that of one process with the same weights."""
    mine_round, encode = RoundTask.mine, TextEncoder.encode
    encoded, tables = [0], []

    def count(self, inputs, **options):
        encoded[0] += len(inputs)
        return encode(self, inputs, **options)

    def mine_twice(self, vectors, *, round, device, refresh=None):
        encoded[0] = 0
        table, facts = mine_round(self, vectors, round=round, device=device)
        half = encoded[0]
        own = Vectors(vectors._text, vectors._encoder, precision="fp32", sharing=Alone())
        expected, expected_facts = mine_round(self, own, round=round, device=device)
        assert abs(2 * half - (encoded[0] - half)) <= 8
        for name in COLUMNS:
            found = getattr(table, name)
            assert found.tobytes() == getattr(expected, name).tobytes(), name
        assert facts.counts == expected_facts.counts
        tables.append(table)
        return table, facts

    with patch.context() as here:
        here.setattr(TextEncoder, "encode", count)
        here.setattr(RoundTask, "mine", mine_twice)
        # Encoded by the evaluation of the same step, the passages would not be encoded again.
        train(folder, "counted", *ROUNDS, "training.eval_at_start=false", "evaluation.dev_passages=8")
    assert len(tables) == 2


def check_failures(folder, rank):
    """Whatever fails on rank 1, wherever in the work, both end with its line."""

    def fail(error):
        def raise_it(*arguments, **options):
            raise error

        return raise_it

    scene = pytest.MonkeyPatch()
    cases = {
        "encode": (TextEncoder, "encode", InputError("the weights are broken"), "the weights are broken"),
        "score_samples": (rounds, "score_samples", MemoryError("no room"), "MemoryError: no room"),
    }
    for number, (where, name, error, line) in enumerate(cases.values()):
        with scene.context() as here:
            if rank == 1:
                here.setattr(where, name, fail(error))
            expected = type(error) if rank == 1 or isinstance(error, InputError) else RankFailed
            with pytest.raises(expected) as caught:
                train(folder, f"fails-{number}", *ROUNDS)
        told = f"rank 1: {line}" if expected is RankFailed else line.removeprefix("MemoryError: ")
        assert str(caught.value) == told


def check_no_snapshot(folder, rank):
    """The miner beside training cannot start on rank 0: no rank trains on without it."""

    def spawn(given, run):
        raise OSError("the disk is full")

    with pytest.MonkeyPatch.context() as here:
        here.setattr(background, "_spawn", spawn)
        with pytest.raises(OSError if rank == 0 else RankFailed, match="the disk is full"):
            train(folder, "no-snapshot", *RUNS["background"])


def mine_texts(folder, output):
    """`retrieval-cl mine` with the model that the test has left."""
    config = config_of(folder, "mining.num_negatives=3")
    prepared = mine.prepare(config, load_encoder(str(folder / "model")))
    return mine.mine_negatives(prepared, MineOptions(output=output, shape="tuples"))


def mine_kept(folder, output):
    """The same with vectors that are kept, in shards of five texts."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(kept_vectors, "SHARD_ROWS", 5)
        store = output.with_name(f"{output.name}-store")
        config = config_of(folder, "mining.num_negatives=3")
        prepared = mine.prepare(config, load_encoder(str(folder / "model")), store=store)
        return mine.mine_negatives(prepared, MineOptions(output=output, shape="tuples"))


def mine_stored(folder, output):
    """The same from stored vectors alone."""
    names = {name: folder / f"{name}.parquet" for name in ("queries", "passages")}
    miner = mine_vectors.prepare_vectors(
        config_of(folder, "mining.num_negatives=3"), **names, positives=folder / "positives.tsv"
    )
    return mine_vectors.mine_vectors(miner, MineOptions(output=output))


def write_stored(folder):
    """30 queries and 90 passages; two passages match each query."""
    generator = np.random.default_rng(0)
    for name, rows in (("queries", 30), ("passages", 90)):
        vectors = generator.normal(size=(rows, 8)).astype(np.float32)
        columns = {"id": [f"{name[0]}{row}" for row in range(rows)], "vector": list(vectors)}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    pairs = [f"q{row}\tp{3 * row + more}" for row in range(30) for more in (0, 1)]
    (folder / "positives.tsv").write_text("\n".join(pairs) + "\n")


def check_reranker():
    """Pairs scored by shares; nothing is asked twice."""
    asked = []

    def score(queries, passages):
        asked.append(len(queries))
        return np.sin(queries * 7.0 + passages)

    queries, passages = np.divmod(np.arange(500), 20)
    found = over_all_ranks(torch.device("cpu")).reranker(score)(queries, passages)
    assert np.array_equal(found, score(queries, passages).astype(np.float32))
    assert sum(asked[:-1]) < 300

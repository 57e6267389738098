"""Mining beside sentence_transformers.util.mine_hard_negatives: time, memory, negatives, calls of a reranker.

    python benchmarks/mine.py [--queries 20000] [--passages 100000] [--only time --only memory ...]

Texts are drawn at random, one query in ten has two positives; the model is a static one. Both take the four
best negatives of the 52 best hits, relative margin 0.05 from the weakest positive, and give triplets of
texts: the peer a Dataset, we a Parquet file. "time": of everything but encoding: both are given the same
vectors. "negatives": which (query, negative) pairs are the same; two scores that differ by rounding alone may
change places. The goals of "time" and "memory" are meant for the sizes that are the defaults.
"memory": how far the resident memory of a fresh process that holds texts and model rises, encoding included.
"reranker": 52 hits of each query are scored by a stand-in for a cross-encoder that returns zeros;
what that adds is the time beyond that of the same call without it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
import torch
from datasets import Dataset
from mine_texts import Data, Size, draw_data, make_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives
from side_by_side import (
    MIB,
    Goal,
    Row,
    Step,
    compare_amounts,
    in_child,
    machine,
    parse,
    peak_bytes,
    report,
    time_in_turn,
)

from retrieval_cl.encoders.cross_encoder import TextReranker
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.export import write_texts
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.sources.normalise import group_rows

SECTIONS = ("time", "negatives", "memory", "reranker")
PEERS = {"its matrix product": False, "its FAISS path": True}
DEPTH, NEGATIVES = 52, 4
RERANKED_QUERIES, RERANKED_PASSAGES = 20_000, 2_000


class Encoded:
    """A model for the peer whose vectors are there already."""

    def __init__(self, model: SentenceTransformer, queries: np.ndarray, passages: np.ndarray) -> None:
        """`queries`, `passages`: what the model would give for all texts, in their order."""
        self.device, self.similarity = model.device, model.similarity
        self.similarity_pairwise = model.similarity_pairwise
        self.get_embedding_dimension = model.get_embedding_dimension
        self._vectors = {"query": queries, "passage": passages}

    def encode_query(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """Vectors of all queries."""
        assert len(texts) == len(self._vectors["query"])
        return self._vectors["query"]

    def encode_document(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """Vectors of all passages."""
        assert len(texts) == len(self._vectors["passage"])
        return self._vectors["passage"]


class Free:
    """Stands in for a cross-encoder, costs nothing, counts calls."""

    calls = 0

    def predict(self, inputs: list[tuple[str, str]], **_: Any) -> torch.Tensor:
        """Zeros."""
        self.calls += 1
        return torch.zeros(len(inputs))


def run_ours(
    data: Data, vectors: tuple[np.ndarray, np.ndarray], folder: Path, *, reranker: Free | None = None
) -> NegativeTable:
    """From vectors to a file of triplets."""
    scorer = None
    if reranker is not None:
        scorer = TextReranker(reranker, queries=data.queries, passages=data.passages)
    table, _ = mine(
        *vectors,
        queries=np.arange(len(data.queries)),
        positives=data.positives,
        groups=group_rows(data.passages, equal=None),
        config=MiningConfig(
            depth=DEPTH, num_negatives=NEGATIVES, relative_margin=0.0 if reranker is not None else 0.05
        ),
        seed=0,
        round=0,
        reranker=scorer,
    )
    write_texts(
        folder / "triplets.parquet",
        table,
        shape="triplets",
        queries=data.queries,
        passages=data.passages,
        positives=data.positives,
        positive_scores=None,
        scores="none",
    )
    return table


def run_peer(data: Data, pairs: Dataset, model: Any, *, use_faiss: bool, reranker: Free | None = None) -> Any:
    """From a model to a Dataset of triplets."""
    with quiet():
        return mine_hard_negatives(
            pairs,
            model,
            corpus=data.passages,
            cross_encoder=reranker,
            range_min=0,
            # It looks at as many more as a query has positives, at most.
            range_max=DEPTH - int(data.positives.counts.max()),
            relative_margin=0.0 if reranker is not None else 0.05,
            num_negatives=NEGATIVES,
            use_faiss=use_faiss,
            verbose=False,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def share_equal(data: Data, table: NegativeTable, found: Any) -> tuple[float, float]:
    """Share of the peer's (query, negative) pairs among ours, and of ours among the peer's, in percent."""
    query = {text: row for row, text in enumerate(data.queries)}
    passage = {text: row for row, text in enumerate(data.passages)}
    theirs = {
        (query[left], passage[right]) for left, right in zip(found["query"], found["negative"], strict=True)
    }
    line, place = np.nonzero(table.rows >= 0)
    ours = set(zip(table.queries[line].tolist(), table.rows[line, place].tolist(), strict=True))
    return 100 * len(ours & theirs) / len(theirs), 100 * len(ours & theirs) / len(ours)


def compare_time(size: Size, folder: Path, *, sections: Sequence[str], repeats: int) -> list[Row]:
    """Time beyond encoding, encoding itself, and what was mined."""
    data = draw_data(size)
    encoder, pairs = make_model(data, size), data.pairs
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    start = time.perf_counter()
    expected = encoder.model.encode_document(data.passages, **options)
    encoder.model.encode_query(data.queries, **options)
    peer_seconds = time.perf_counter() - start
    start = time.perf_counter()
    vectors = (encoder.encode(data.queries, kind="query"), encoder.encode(data.passages, kind="passage"))
    seconds = time.perf_counter() - start
    np.testing.assert_allclose(vectors[1], expected, atol=1e-5)
    given = Encoded(encoder.model, *vectors)
    contestants: dict[str, Step] = {"ours": lambda: run_ours(data, vectors, folder)}
    for name, use_faiss in PEERS.items():
        contestants[name] = partial(run_peer, data, pairs, given, use_faiss=use_faiss)
    timings = time_in_turn(contestants, repeats=repeats if "time" in sections else 0)
    rows: list[Row] = []
    if "time" in sections:
        rows += [
            timings.compare(f"time beyond encoding, {name}", "ours", name, goal=Goal(1 / 3)) for name in PEERS
        ]
        rows.append(compare_amounts("time of encoding", seconds, peer_seconds, unit="s"))
    if "negatives" in sections:
        for name in PEERS:
            of_theirs, of_ours = share_equal(data, timings.values["ours"], timings.values[name])
            goal = Goal(99.9, "at least", of="ours")
            rows.append(Row(f"of its negatives also ours, {name}", of_theirs, None, "%", None, goal))
            rows.append(Row(f"of our negatives also its, {name}", of_ours, None, "%", None, goal))
    return rows


def memory_of(size: Size, use_faiss: bool | None, threads: int) -> int:
    """Peak bytes of encoding and mining, ours where `use_faiss` is None; runs in a process of its own."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        small, data = replace(size, queries=100, passages=400), draw_data(size)
        few, model = draw_data(small), make_model(data, size)
        steps = [partial(_encode_and_mine, each, model, Path(temporary), use_faiss) for each in (few, data)]
        return peak_bytes(steps[1], warm_up=steps[0])


def _encode_and_mine(data: Data, model: TextEncoder, folder: Path, use_faiss: bool | None) -> Any:
    if use_faiss is not None:
        return run_peer(data, data.pairs, model.model, use_faiss=use_faiss)
    vectors = (model.encode(data.queries, kind="query"), model.encode(data.passages, kind="passage"))
    return run_ours(data, vectors, folder)


def compare_memory(size: Size, *, threads: int) -> list[Row]:
    """Each contestant in a child process."""
    ours = in_child(memory_of, size, None, threads) / MIB
    return [
        compare_amounts(
            f"memory beyond the texts, {name}",
            ours,
            in_child(memory_of, size, use_faiss, threads) / MIB,
            unit="MiB",
            goal=Goal(0.25),
        )
        for name, use_faiss in PEERS.items()
    ]


def compare_reranker(size: Size, folder: Path, *, repeats: int) -> list[Row]:
    """Time beyond encoding over few passages, where the search costs little; and calls of `predict`."""
    data = draw_data(size)
    encoder, pairs = make_model(data, size), data.pairs
    vectors = (encoder.encode(data.queries, kind="query"), encoder.encode(data.passages, kind="passage"))
    given = Encoded(encoder.model, *vectors)
    scorers: Mapping[str, Free] = {"ours": Free(), "peer": Free()}
    contestants: dict[str, Step] = {}
    for name, scorer in {"with": True, "without": False}.items():
        free = {who: one if scorer else None for who, one in scorers.items()}
        contestants[f"ours {name}"] = partial(run_ours, data, vectors, folder, reranker=free["ours"])
        contestants[f"peer {name}"] = partial(
            run_peer, data, pairs, given, use_faiss=False, reranker=free["peer"]
        )
    timings = time_in_turn(contestants, repeats=repeats)
    added = {
        who: median(np.subtract(timings.seconds[f"{who} with"], timings.seconds[f"{who} without"]))
        for who in scorers
    }
    calls = [scorers[who].calls / (1 + repeats) for who in ("ours", "peer")]
    name = f"{size.queries:,} queries x {DEPTH}"
    return [
        timings.compare(f"time with a free cross-encoder, {name}", "ours with", "peer with"),
        compare_amounts(
            f"of this added by the cross-encoder, {name}",
            added["ours"],
            added["peer"],
            unit="s",
            goal=Goal(0.1),
        ),
        compare_amounts(f"calls of the cross-encoder, {name}", *calls, unit="calls"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sections asked for."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, help="sections; all if not given")
    parser.add_argument("--queries", type=int, default=20_000, help="queries of time, negatives and memory")
    parser.add_argument("--passages", type=int, default=100_000, help="passages of these")
    parser.add_argument("--dim", type=int, default=256, help="numbers a vector")
    given = parse(parser, arguments)
    faiss.omp_set_num_threads(given.threads)
    sections = given.only or SECTIONS
    size = Size(given.queries, given.passages, given.dim)
    reranked = Size(RERANKED_QUERIES, RERANKED_PASSAGES, given.dim)
    if given.quick:
        size, reranked = Size(120, 400, 32), Size(200, 300, 32)
    print(f"{machine()}; {size.queries:,} x {size.passages:,} x {size.dim}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        if {"time", "negatives"} & set(sections):
            rows += compare_time(size, Path(temporary), sections=sections, repeats=given.repeats)
        if "reranker" in sections:
            rows += compare_reranker(reranked, Path(temporary), repeats=given.repeats)
    if "memory" in sections:
        rows += compare_memory(size, threads=given.threads)
    report(rows, given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

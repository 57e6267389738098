"""FAISS indexes tuned to a recall beside exact search: what they reach, seconds a query, bytes a vector.

    python benchmarks/faiss_recall.py [--quick] [--target 0.95] [--factory HNSW32,SQfp16 ...]

Vectors are clustered, as those of texts are; `peer` is exact search over the same vectors and queries.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
from side_by_side import Goal, Row, compare_amounts, machine, parse, report, time_in_turn

from retrieval_cl.indexing import exact
from retrieval_cl.indexing.approximate import FaissSettings, build_approximate, search_near

FACTORIES = ("IVF1024,SQ8", "IVF1024,PQ96", "HNSW32,SQfp16", "auto")
QUICK = ("IVF16,SQ8", "HNSW8", "auto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, tunes and times each factory in turn."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="vectors")
    parser.add_argument("--dim", type=int, default=384, help="numbers a vector")
    parser.add_argument("--queries", type=int, default=1000, help="queries measured and timed")
    parser.add_argument("--target", type=float, default=0.95, help="recall@10 to reach")
    parser.add_argument("--factory", action="append", help="may be given several times")
    given = parse(parser, arguments)
    faiss.omp_set_num_threads(given.threads)
    if given.quick:
        given.rows, given.dim, given.queries = 3000, 32, 200
    vectors, queries = clustered(given.rows, given.queries, dim=given.dim)
    print(f"{machine()}; {given.rows:,} x {given.dim}, {given.queries:,} queries, target {given.target:g}")
    rows: list[Row] = []
    for factory in given.factory or (QUICK if given.quick else FACTORIES):
        settings = FaissSettings(factory, target_recall=given.target)
        rows += measure(vectors, queries, settings, repeats=given.repeats)
    report(rows, given)
    return 0


def measure(vectors: np.ndarray, queries: np.ndarray, settings: FaissSettings, *, repeats: int) -> list[Row]:
    """Recall, time to build and tune, time to search, bytes of the file."""
    start = time.perf_counter()
    built = build_approximate(vectors, settings, queries=queries, say=print)
    seconds = time.perf_counter() - start
    print(built.text())
    with tempfile.TemporaryDirectory() as folder:
        built.index.save(Path(folder) / "index")
        size = (Path(folder) / "index").stat().st_size
    per_hit = built.settings.per_hit
    timings = time_in_turn(
        {
            "faiss": lambda: search_near(built.index, queries, vectors, k=10, per_hit=per_hit),
            "exact": lambda: exact.search(queries, vectors, k=10),
        },
        repeats=repeats,
    )
    name, target = settings.factory, settings.target_recall or 0.0
    goal = Goal(target, "at least", of="ours", required=True)
    return [
        compare_amounts(f"{name}: recall@10", built.recall.mean, 1.0, unit="share", goal=goal),
        compare_amounts(f"{name}: bytes a vector", size / len(vectors), 4.0 * vectors.shape[1], unit="B"),
        Row(f"{name}: build and tune", seconds, None, "s", None),
        timings.compare(f"{name}: all queries at once", "faiss", "exact"),
    ]


def clustered(num_rows: int, num_queries: int, *, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around one centre for every hundred, and queries around the same."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, num_rows // 100), dim), np.float32)
    rows = rng.standard_normal((num_rows + num_queries, dim), np.float32)
    rows += centres[rng.integers(0, len(centres), len(rows))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:num_rows], rows[num_rows:]


if __name__ == "__main__":
    sys.exit(main())

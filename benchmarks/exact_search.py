"""Exact search on the CPU beside the bare matrix product and faiss, and within a memory budget.

    python benchmarks/exact_search.py [--only rate --only faiss --only memory --only int8] [--folder DIR]

"rate" and "faiss": 10,000 queries x 200,000 passages x 384, k = 100, random unit rows, in turn. The bare
product is float32, in tiles of 256 queries whose scores are thrown away; faiss is IndexFlatIP on the same
threads, its index built beforehand; ours is given 2 GiB. Rates are GFLOP/s of 2 * Q * N * D. Without
--quick the rows of the bf16 pass, and "int8", are left out where the processor does not multiply bf16
itself: there search takes float32. "memory":
2,000,000 x 384 float16 on disk, 1,000 queries, k = 100, under 1 GiB: the rise of anonymous memory (RssAnon,
looked at every 2 ms) of a fresh process while it searches; pages of the mapped file are not anonymous.
"int8": one tile of 256 queries x 100,000 passages x 384, k = 100, by an int8 first pass that search does not
have, beside the bf16 one.
"""

from __future__ import annotations

import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import MIB, Goal, Row, compare_amounts, in_child, machine, parse, report, time_in_turn

from retrieval_cl.indexing import exact, first_pass, order, shortlist
from retrieval_cl.indexing.tile_search import search_tile
from retrieval_cl.indexing.vector_files import map_file

SECTIONS = ("rate", "faiss", "memory", "int8")
TILE = 256
# Of "rate" and "faiss": all passages are one shard.
ROOM = 2**31
BLOCK_ROWS = 50_000
# First passes, and the rate each should reach beside the bare float32 product.
PASSES = {"float32": (torch.float32, 0.7), "bf16": (torch.bfloat16, 2.0)}


@dataclass(frozen=True)
class Size:
    """Rows and width of a search."""

    queries: int
    passages: int
    dim: int
    k: int = 100

    @property
    def gflop(self) -> float:
        """Of the bare product."""
        return 2e-9 * self.queries * self.passages * self.dim


FULL, QUICK = Size(10_000, 200_000, 384), Size(200, 4000, 32, k=10)
ONE_TILE, QUICK_TILE = Size(TILE, 100_000, 384), Size(20, 4000, 32, k=10)
DISK, QUICK_DISK = Size(1000, 2_000_000, 384), Size(50, 20_000, 32, k=10)


def draw(rows: int, dim: int, *, seed: int) -> torch.Tensor:
    """Random unit rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def bare_product(queries: torch.Tensor, passages: torch.Tensor) -> None:
    """All scores, tile by tile, into one buffer."""
    scores = torch.empty(TILE, len(passages))
    for tile in queries.split(TILE):
        torch.mm(tile, passages.T, out=scores[: len(tile)])


def compare_speed(size: Size, *, sections: Sequence[str], repeats: int, bf16: bool) -> list[Row]:
    """Rates beside the bare product and times beside faiss; `bf16`: of that pass as well."""
    queries, passages = draw(size.queries, size.dim, seed=0), draw(size.passages, size.dim, seed=1)
    ours = {name: one for name, one in PASSES.items() if bf16 or name != "bf16"}
    contestants = {
        name: lambda dtype=dtype: exact.search(
            queries, passages, k=size.k, first_pass=dtype, memory_bytes=ROOM
        )
        for name, (dtype, _) in ours.items()
    }
    if "rate" in sections:
        contestants["bare"] = lambda: bare_product(queries, passages)
    if "faiss" in sections:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(size.dim)
        index.add(passages.numpy())
        contestants["faiss"] = lambda: index.search(queries.numpy(), size.k)
    timings = time_in_turn(contestants, repeats=repeats)
    rows = []
    for name, (_, goal) in ours.items():
        np.testing.assert_array_equal(timings.values["float32"].rows, timings.values[name].rows)
        if "rate" in sections:
            title = f"rate beside the bare float32 product, {name} pass"
            limit = Goal(goal, "at least")
            rows.append(
                timings.compare_rates(title, name, "bare", amount=size.gflop, unit="GFLOP/s", goal=limit)
            )
        if "faiss" in sections:
            limit = Goal(1.0) if name == "bf16" else None
            rows.append(timings.compare(f"time beside IndexFlatIP, {name} pass", name, "faiss", goal=limit))
    return rows


def quantised(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in int8 and the unit of each row."""
    units = vectors.abs().amax(dim=1, keepdim=True) / 127
    return (vectors / units).round().to(torch.int8), units


def compare_int8(size: Size, *, repeats: int) -> list[Row]:
    """What an int8 first pass would take; its bounds are wider, so that more passages are scored again."""
    queries, passages = draw(size.queries, size.dim, seed=0), draw(size.passages, size.dim, seed=1)
    device, norms = torch.device("cpu"), queries.norm(dim=1)
    shard = shortlist.make_shard(passages, first_row=0, first_pass=torch.bfloat16, device=device)
    first = first_pass.choose(shard, tile_rows=size.queries, count=2 * size.k)
    before = torch.full((size.queries, size.k), order.EMPTY)
    codes, units = quantised(passages)
    lost = float((passages - codes * units).norm(dim=1).max())
    halves, passages_bf16, columns = queries.bfloat16(), passages.bfloat16(), codes.T

    def by_int8() -> tuple[torch.Tensor, float]:
        asked, scale = quantised(queries)
        products = torch._int_mm(asked, columns).float().mul_(units.T).mul_(scale)
        error = (queries - asked * scale).norm(dim=1, keepdim=True) + norms[:, None] * lost
        # All that the bound does not rule out: within twice the error of the k-th product.
        values, found, _ = shortlist.select(products, count=16 * size.k)
        wanted = values + error >= values[:, size.k - 1 : size.k] - error
        width = int(wanted.sum(dim=1).max())
        keys = torch.full((size.queries, width), order.EMPTY)
        for row, rows in enumerate(found[:, :width]):
            keys[row] = order.pack(order.dot(queries[row : row + 1], passages[rows]), rows)
        return order.best(keys, k=size.k), float(wanted.sum(dim=1).double().mean())

    timings = time_in_turn(
        {
            "bf16": lambda: search_tile(queries, first, norms=norms, before=before, chunk_bytes=2**20),
            "int8": by_int8,
            "bare bf16": lambda: halves @ passages_bf16.T,
            "bare int8": lambda: torch._int_mm(quantised(queries)[0], columns),
        },
        repeats=repeats,
    )
    assert torch.equal(timings.values["bf16"], timings.values["int8"][0])
    return [
        timings.compare_rates(
            "bare int8 product beside bf16", "bare int8", "bare bf16", amount=size.gflop, unit="GFLOP/s"
        ),
        timings.compare("time of a tile, int8 pass beside bf16 pass", "int8", "bf16"),
        compare_amounts(
            "passages scored again, int8 pass, beside k", timings.values["int8"][1], size.k, unit="passages"
        ),
    ]


def write_passages(path: Path, size: Size) -> None:
    """A float16 file, a block at a time."""
    shape = (size.passages, size.dim)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for number, start in enumerate(range(0, size.passages, BLOCK_ROWS)):
        stop = min(start + BLOCK_ROWS, size.passages)
        out[start:stop] = draw(stop - start, size.dim, seed=number).numpy()
    out.flush()


@contextmanager
def watched(peak: list[int]) -> Any:
    """Puts into `peak` how far anonymous memory rises inside."""
    before, ended = anonymous_bytes(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            peak[0] = max(peak[0], anonymous_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def anonymous_bytes() -> int:
    """Of this process, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def search_file(path: Path, size: Size, memory: int, threads: int) -> tuple[int, float]:
    """Peak of anonymous memory in bytes, and seconds; runs in a process of its own."""
    torch.set_num_threads(threads)
    passages = map_file(path)
    queries = passages[:: max(1, len(passages) // size.queries)][: size.queries]
    few = torch.randn(64, 8)
    exact.search(few, few, k=1)
    peak = [0]
    start = time.perf_counter()
    with watched(peak):
        hits = exact.search(queries, passages, k=size.k, memory_bytes=memory)
    seconds = time.perf_counter() - start
    stride = max(1, len(passages) // size.queries)
    assert (hits.rows[:, 0] == np.arange(len(queries)) * stride).all(), "a passage is nearest to itself"
    return peak[0], seconds


def measure_memory(size: Size, *, folder: Path | None, memory: str, threads: int) -> list[Row]:
    """The search of a file under a budget."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "passages.npy"
        write_passages(path, size)
        budget = exact.parse_memory(memory)
        peak, seconds = in_child(search_file, path, size, budget, threads)
    name = f"{size.passages:,} x {size.dim} float16 on disk"
    return [
        compare_amounts(
            f"anonymous memory beside the budget, {name}",
            peak / MIB,
            budget / MIB,
            unit="MiB",
            goal=Goal(1.0, required=True),
        ),
        Row(f"rate, {name}", size.gflop / seconds, None, "GFLOP/s", None),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sections asked for."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, help="sections; all if not given")
    parser.add_argument("--folder", type=Path, help="where the 1.5 GB file of 'memory' stands meanwhile")
    parser.add_argument("--memory", default="1GiB", help="budget of 'memory'")
    given = parse(parser, arguments)
    sections = given.only or SECTIONS
    print(machine())
    bf16 = given.quick or exact.multiplies_bfloat16()
    if not bf16:
        print("this processor has no bf16 products: the rows of the bf16 pass are left out")
    rows: list[Row] = []
    if set(sections) & {"rate", "faiss"}:
        rows += compare_speed(
            QUICK if given.quick else FULL, sections=sections, repeats=given.repeats, bf16=bf16
        )
    if "int8" in sections and bf16:
        rows += compare_int8(QUICK_TILE if given.quick else ONE_TILE, repeats=given.repeats)
    if "memory" in sections:
        size = QUICK_DISK if given.quick else DISK
        rows += measure_memory(size, folder=given.folder, memory=given.memory, threads=given.threads)
    report(rows, given)
    return int(any(row.goal is not None and row.goal.required and not row.reached for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

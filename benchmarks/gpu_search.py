"""GPU section of exact search: 100,000 queries x 1,000,000 passages x 768, top 100, in a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from exact_search import Size, draw
from gpu_tools import free
from side_by_side import MIB, Goal, Row, compare_amounts, time_in_turn
from torch import Tensor

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact

FULL, QUICK = Size(100_000, 1_000_000, 768), Size(40, 3000, 16, k=5)
DEVICE_BYTES, HOST_BYTES = 12 * 2**30, 4 * 2**30
TILE = 1024
MOST_SECONDS = Goal(10.0, of="ours")
WITHIN = Goal(1.0, required=True)
SAME = Goal(0.0, of="ours", required=True)
# Queries that are also searched for on the processor, in float32.
CHECKED = 32


def search(device: torch.device, *, quick: bool) -> list[Row]:
    """Time and memory of exact search beside torch's matmul and topk, and faiss' knn_gpu if it is there.

    Vectors lie on the host; their way to the GPU counts for all. The peer in bfloat16 is not exact.
    """
    size = QUICK if quick else FULL
    queries, passages = draw(size.queries, size.dim, seed=0), draw(size.passages, size.dim, seed=1)
    budget: dict[str, Any] = {"device_bytes": DEVICE_BYTES} if device.type == "cuda" else {}

    def ours() -> Hits:
        return exact.search(queries, passages, k=size.k, device=device, memory_bytes=HOST_BYTES, **budget)

    peers = {
        "torch float32": lambda: matmul_topk(queries, passages, size.k, device, torch.float32),
        "torch bf16": lambda: matmul_topk(queries, passages, size.k, device, torch.bfloat16),
        **knn_gpu(queries, passages, size.k),
    }
    memory = peak_mib(ours)
    timings = time_in_turn({"ours": ours, **peers}, repeats=1 if quick else 2, wait=torch.cuda.synchronize)
    few = queries[:CHECKED]
    wanted, found = exact.search(few, passages, k=size.k, memory_bytes=HOST_BYTES), timings.values["ours"]
    same = (wanted.rows == found.rows[:CHECKED]) & (wanted.scores == found.scores[:CHECKED])
    where = f"{size.queries:,} x {size.passages:,} x {size.dim}, top {size.k}"
    return [
        Row(f"exact search, {where}", median(timings.seconds["ours"]), None, "s", None, MOST_SECONDS),
        *(timings.compare(f"exact search beside {name}, {where}", "ours", name) for name in peers),
        compare_amounts(
            "memory of exact search beside its budget", memory, DEVICE_BYTES / MIB, unit="MiB", goal=WITHIN
        ),
        compare_amounts(
            "hits that differ from the processor's", int((~same).sum()), same.size, unit="hits", goal=SAME
        ),
    ]


def matmul_topk(
    queries: Tensor, passages: Tensor, k: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Scores and rows as plain torch finds them, a tile of queries at a time."""
    there = passages.to(device, dtype)
    found = [(tile.to(device, dtype) @ there.T).topk(k, dim=1) for tile in queries.split(TILE)]
    return torch.cat([each.values for each in found]).cpu(), torch.cat([each.indices for each in found]).cpu()


def knn_gpu(queries: Tensor, passages: Tensor, k: int) -> dict[str, Callable[[], object]]:
    """The same by faiss; nothing where no GPU build of faiss is installed."""
    if find_spec("faiss") is None:
        return {}
    faiss = import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        return {}
    resources = faiss.StandardGpuResources()

    def run() -> object:
        return faiss.knn_gpu(
            resources, queries.numpy(), passages.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT
        )

    return {"faiss knn_gpu": run}


def peak_mib(step: Callable[[], object]) -> float:
    """Memory of the device that a step needs, in MiB, as torch's allocator counts it."""
    free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB

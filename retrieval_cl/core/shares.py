"""Rows made by shares: cut into windows by their order alone, each window made by one rank, all held by all.

What is made together decides the last bits of a row (what it is padded with, the shape of a product), so the
windows never depend on the ranks: one process makes the same windows, and the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.ranks import num_ranks, rank
from retrieval_cl.core.together import together

Make = Callable[[Int64[np.ndarray, " R"]], Float32[np.ndarray, "R D"]]
"""Row numbers -> these rows."""

# Few enough rows that every rank gets some, enough for a full batch; about so many windows between.
MAX_ROWS, MIN_ROWS, NUM_WINDOWS = 16_384, 512, 64


def windows(num_rows: int) -> list[slice]:
    """Runs of places that are made together: of one size, the last one what is left."""
    most = min(MAX_ROWS, max(MIN_ROWS, -(-num_rows // NUM_WINDOWS)))
    size = -(-num_rows // max(1, -(-num_rows // most)))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, max(1, size))]


def make_rows(order: Int64[np.ndarray, " N"], dim: int, *, make: Make) -> Float32[np.ndarray, "N D"]:
    """All rows, made by this process.

    Args:
        order: all row numbers; those that follow each other are made together.
        dim: numbers a row.
        make: gives some of them.
    """
    rows = np.empty((len(order), dim), dtype=np.float32)
    for window in windows(len(order)):
        rows[order[window]] = make(order[window])
    return rows


def make_rows_over_ranks(
    order: Int64[np.ndarray, " N"], dim: int, *, make: Make, link: torch.device
) -> Float32[np.ndarray, "N D"]:
    """The same bits on every rank, each window made by one of them; all ranks must call alike.

    Args:
        order: as in `make_rows`; where rows that cost more come first, all ranks have about as much to do.
        dim: numbers a row.
        make: this rank's way to make them.
        link: where ranks talk to each other: the GPU under nccl.

    Raises:
        InputError: as `make` does on any rank.
        RankFailed: another rank failed in any other way.
    """
    dealt = [(order[window], _owner(number)) for number, window in enumerate(windows(len(order)))]
    with together(link):
        rows = np.empty((len(order), dim), dtype=np.float32)
        for part, owner in dealt:
            if owner == rank():
                rows[part] = make(part)
    for part, owner in dealt:
        rows[part] = _send(torch.from_numpy(rows[part]), owner=owner, link=link).numpy()
    return rows


def _owner(number: int) -> int:
    """Windows are dealt back and forth: 0 1 2, 2 1 0, 0 1 2 ..."""
    turn = number % (2 * num_ranks())
    return min(turn, 2 * num_ranks() - 1 - turn)


def _send(rows: Float32[Tensor, "R D"], *, owner: int, link: torch.device) -> Float32[Tensor, "R D"]:
    """The owner's rows, on every rank."""
    if num_ranks() == 1:
        return rows
    there = rows.to(link)
    dist.broadcast(there, src=owner)
    return there.cpu()

"""Hits that do not fit into memory: arrays on disk that a search fills."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits

SCORES, ROWS = "scores.npy", "rows.npy"


def new_hits(num_queries: int, k: int) -> Hits:
    """Room for hits in memory: 12 bytes a hit."""
    return Hits(np.empty((num_queries, k), dtype=np.float32), np.empty((num_queries, k), dtype=np.int64))


def map_hits(folder: Path, num_queries: int, *, k: int) -> Hits:
    """Room for hits in two .npy files of a folder, which may be larger than memory."""
    shape = (num_queries, k)
    return Hits(
        np.lib.format.open_memmap(folder / SCORES, mode="w+", dtype=np.float32, shape=shape),
        np.lib.format.open_memmap(folder / ROWS, mode="w+", dtype=np.int64, shape=shape),
    )


def scratch_hits(num_queries: int, k: int) -> Hits:
    """Room for hits in files of the folder for temporary files; they vanish with the arrays."""
    with tempfile.TemporaryDirectory() as folder:
        # What is mapped stays while it is mapped, without a name.
        return map_hits(Path(folder), num_queries, k=k)


def check_room(out: Hits, num_queries: int, *, k: int) -> None:
    """Raises InputError where a caller's arrays are no room for these hits."""
    if out.rows.shape != (num_queries, k) or not (out.rows.flags.writeable and out.scores.flags.writeable):
        kind = "writable" if out.rows.flags.writeable and out.scores.flags.writeable else "read-only"
        raise InputError(
            f"out has shape {out.rows.shape} and is {kind}; expected a writable one of {(num_queries, k)}"
        )

"""Which FAISS index 'auto' stands for: a table of kinds with their bytes a vector, read from the top.

A kind is taken if its graph or lists pay at that number of rows, if it fits, and if it is known to reach
the target (what it really reaches is measured after the build):

| kind                 | bytes a vector                  | rows from | up to recall |
|----------------------|---------------------------------|-----------|--------------|
| Flat                 | 4 D                             |         1 | 1            |
| HNSW32,SQfp16        | 2 D + 272                       | 1,000,000 | 0.999        |
| IVF,SQfp16           | 2 D + 8                         |    10,000 | 0.999        |
| IVF,SQ8              | D + 8                           |    10,000 | 0.99         |
| IVF,PQ of D/2, D/4 B | D/2 + 8, D/4 + 8                |    10,000 | 0.98, 0.95   |

A graph of 32 neighbours keeps 2 * 32 links of 4 bytes at its lowest level, about 4 bytes above, and 12 of
offset and level: 272. A list keeps an id of 8 bytes with each vector; the lists' centres are 4 D each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrieval_cl.core.errors import InputError

# From here on an exhaustive search is too slow for one query at a time.
FLAT_BELOW = 1_000_000
# The arrays of an index double as it grows: measured 1.36 times its size at most, for Flat and lists.
GROWTH = 1.5
# Of the memory; the rest is for a block of rows on their way in, and for exact search beside it.
INDEX_SHARE = 0.75
_GRAPH_BYTES = 272
_ID_BYTES = 8
_LISTS_FROM = 10_000
# Fewer rows a list than this and k-means places centres badly (faiss warns below 39).
_ROWS_A_LIST = 39


@dataclass(frozen=True)
class Choice:
    """A factory string and why it was taken.

    Attributes:
        factory: what `faiss.index_factory` takes.
        reason: for the manifest and the screen.
    """

    factory: str
    reason: str


@dataclass(frozen=True)
class _Kind:
    """A row of the table; `fixed` are the bytes of the lists' centres."""

    factory: str
    row_bytes: int
    fixed: int
    rows_from: int
    reaches: float


def choose(
    num_rows: int, dim: int, *, memory_bytes: int | None = None, target_recall: float | None = None
) -> Choice:
    """The index that 'auto' stands for.

    Up to a million rows the first of the table that fits, else the first below Flat.

    Args:
        num_rows: vectors.
        dim: numbers a vector.
        memory_bytes: bound on the memory of the build; None: none.
        target_recall: to be reached, 0 to 1; None: whatever the kind reaches.

    Raises:
        InputError: nothing in the table both fits and reaches the target; the memory that would do is named.
    """
    kinds = [each for each in _table(num_rows, dim) if (target_recall or 0) <= each.reaches]
    # Where nothing else is known to reach the target, an exhaustive search does, however slow.
    able = [each for each in kinds if _pays(each, num_rows)] or kinds[:1]
    for kind in able:
        if memory_bytes is None or need(num_rows, kind.row_bytes, fixed=kind.fixed) <= memory_bytes:
            return Choice(kind.factory, _reason(kind, num_rows, dim, memory_bytes, target_recall))
    least = min(need(num_rows, each.row_bytes, fixed=each.fixed) for each in able)
    raise InputError(
        f"no FAISS index of {num_rows:,} vectors of dim {dim}"
        f"{'' if target_recall is None else f' that reaches recall {target_recall:g}'} fits a memory of "
        f"{in_words(memory_bytes or 0)}; the smallest needs {in_words(least)}: raise index.memory, lower "
        "index.target_recall, or set index.factory to null (exact search of vectors on disk)"
    )


def need(num_rows: int, row_bytes: int | float, *, fixed: int = 0) -> int:
    """Memory that building an index takes, in bytes: while it grows, and with room beside it."""
    return int((num_rows * row_bytes * GROWTH + fixed) / INDEX_SHARE) + 1


def num_lists(num_rows: int) -> int:
    """Lists for so many rows: the power of two next to 4 sqrt(N), with at least 39 rows a list."""
    wanted = round(2 + 0.5 * math.log2(max(1, num_rows)))
    most = int(math.log2(max(1, num_rows // _ROWS_A_LIST)))
    return int(2 ** min(wanted, most))


def in_words(size: int) -> str:
    """A size as it is read: 1.5 GiB, 300 MiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _table(num_rows: int, dim: int) -> list[_Kind]:
    lists = num_lists(num_rows)
    # So many centres are themselves searched by a graph.
    name = f"IVF{lists}_HNSW32" if lists >= 2**16 else f"IVF{lists}"
    centres = lists * (4 * dim + (_GRAPH_BYTES if lists >= 2**16 else 0))
    kinds = [
        _Kind("Flat", 4 * dim, 0, 1, 1.0),
        _Kind("HNSW32,SQfp16", 2 * dim + _GRAPH_BYTES, 0, FLAT_BELOW, 0.999),
        _Kind(f"{name},SQfp16", 2 * dim + _ID_BYTES, centres, _LISTS_FROM, 0.999),
        _Kind(f"{name},SQ8", dim + _ID_BYTES, centres, _LISTS_FROM, 0.99),
    ]
    for part, reaches in ((2, 0.98), (4, 0.95)):
        if dim % part == 0:
            # Codes of 8 bits have 256 centres of all numbers together.
            code, fixed = dim // part, centres + 1024 * dim
            kinds.append(_Kind(f"{name},PQ{code}", code + _ID_BYTES, fixed, _LISTS_FROM, reaches))
    return kinds


def _pays(kind: _Kind, num_rows: int) -> bool:
    return num_rows >= kind.rows_from and (kind.factory != "Flat" or num_rows < FLAT_BELOW)


def _reason(
    kind: _Kind, num_rows: int, dim: int, memory_bytes: int | None, target_recall: float | None
) -> str:
    size = in_words(need(num_rows, kind.row_bytes, fixed=kind.fixed))
    memory = "no bound" if memory_bytes is None else in_words(memory_bytes)
    target = "no target" if target_recall is None else f"target {target_recall:g}"
    return (
        f"{num_rows:,} rows of dim {dim}: {kind.row_bytes} bytes a vector, {size} to build "
        f"(memory: {memory}), recall up to {kind.reaches:g} ({target})"
    )

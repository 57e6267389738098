"""Exact search: the k passages of largest inner product, in bounded memory, the same bits for any tile."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import order, shortlist
from retrieval_cl.indexing.shortlist import BLOCK, Bounds, Shard

DEFAULT_MEMORY = 512 * 2**20
SMALLEST_MEMORY = 16 * 2**20
Vectors = Float[np.ndarray, "_ _"] | Float[Tensor, "_ _"]

# A smaller search gains nothing from bfloat16, and on some processors torch sums few rows' products in it.
_BFLOAT16_WORK = 2**28
_BFLOAT16_ROWS = 16
_MOST_TILE_ROWS = 256
_CHECKED_ROWS = 8192
# A scoring chunk that leaves a core's second-level cache costs twice the time.
_CHUNK_BYTES = {"cpu": 3 * 2**19, "cuda": 2**26}


@dataclass(frozen=True)
class _Plan:
    """Rows of a shard of passages, rows of a tile of queries, bytes of a scoring chunk."""

    shard_rows: int
    tile_rows: int
    chunk_bytes: int


def search(
    queries: Vectors,
    passages: Vectors,
    *,
    k: int,
    memory_bytes: int = DEFAULT_MEMORY,
    device: torch.device | str = "cpu",
    first_pass: torch.dtype | None = None,
) -> Hits:
    """Finds the k passages of largest inner product with each query; cosine where rows are unit rows.

    Exact: a first pass of matrix products names a shortlist, `order.dot` gives its scores, and where the
    bound on the first pass does not rule out every other passage, all within the bound are scored. So the
    hits depend neither on tiles, memory and number of threads, nor on the dtype of the first pass.

    Args:
        queries: rows of floats; their float32 values count.
        passages: rows of floats, fewer than 2**32; a memory map may be larger than memory.
        k: hits a query; where it exceeds the passages, -1 and -inf fill up.
        memory_bytes: bound on what is allocated beside the arguments and the result (20 bytes a hit
            while it is made); at least 16 MiB.
        device: where to compute.
        first_pass: dtype of the first pass; None takes bfloat16 where the processor multiplies it fast.

    Returns:
        Scores and rows, ordered by score descending, ties by row ascending.

    Raises:
        InputError: k below 1, dims that differ, too little memory, or a row with NaN or infinity (named).
    """
    _check(queries, passages, k=k, memory_bytes=memory_bytes)
    place = torch.device(device)
    all_queries, all_passages = _tensor(queries), _tensor(passages)
    keys = torch.full((len(all_queries), k), order.EMPTY)
    dtype = first_pass or _fast_dtype(len(queries) * len(passages) * queries.shape[1], place)
    if len(all_queries) < _BFLOAT16_ROWS:
        dtype = torch.float32
    plan = _plan(all_queries, all_passages, k=k, memory_bytes=memory_bytes, device=place, dtype=dtype)
    for start in range(0, len(all_passages), plan.shard_rows):
        _search_shard(
            all_queries, all_passages, keys, shard_start=start, plan=plan, device=place, first_pass=dtype
        )
    return _unpack(keys)


def check_finite(vectors: Vectors, *, name: str) -> None:
    """Raises InputError naming the first row with NaN or infinity; a memory map is read in pieces."""
    rows = _tensor(vectors)
    for start in range(0, len(rows), _CHECKED_ROWS):
        part = rows[start : start + _CHECKED_ROWS].to(torch.float32)
        shortlist.checked_norms(part, name=name, first_row=start)


def _search_shard(
    queries: Float[Tensor, "Q D"],
    passages: Float[Tensor, "N D"],
    keys: Int64[Tensor, "Q k"],
    *,
    shard_start: int,
    plan: _Plan,
    device: torch.device,
    first_pass: torch.dtype,
) -> None:
    """Updates the packed hits by those of one shard, which lives here alone: two never share the memory."""
    rows = passages[shard_start : shard_start + plan.shard_rows]
    shard = shortlist.make_shard(rows, first_row=shard_start, first_pass=first_pass, device=device)
    for start in range(0, len(queries), plan.tile_rows):
        part = slice(start, start + plan.tile_rows)
        tile = queries[part].to(device, torch.float32)
        norms = shortlist.checked_norms(tile, name="queries", first_row=start)
        before = keys[part].to(device)
        keys[part] = _search_tile(tile, shard, norms=norms, before=before, chunk_bytes=plan.chunk_bytes).cpu()


def _search_tile(
    queries: Float32[Tensor, "Q D"],
    shard: Shard,
    *,
    norms: Float32[Tensor, " Q"],
    before: Int64[Tensor, "Q k"],
    chunk_bytes: int,
) -> Int64[Tensor, "Q k"]:
    """Merges the shard's hits into those found before, which have lower rows."""
    k = before.shape[1]
    products, bounds = shortlist.multiply(queries, shard, norms=norms)
    values, columns, rest = shortlist.select(products, count=_shortlist_length(k))
    # At least k passages of the shortlist, or those found before, reach the floor.
    floor = order.unpack(before[:, -1:])[0]
    if values.shape[1] >= k:
        floor = torch.maximum(floor, bounds.lower(values[:, k - 1 : k]))
    wanted = (bounds.upper(values) >= floor) & (values > -torch.inf)
    found = _score(queries, shard, columns=columns, wanted=wanted, chunk_bytes=chunk_bytes)
    keys = order.best(torch.cat([before, found], dim=1), k=k)
    reached = order.unpack(keys[:, -1:])[0]
    doubtful = ((rest > -torch.inf) & (bounds.upper(rest) >= reached)).nonzero()[:, 0]
    for row in doubtful[:, None]:
        keys[row] = _widen(
            queries[row],
            shard,
            products=products[row],
            bounds=bounds.take(row),
            before=before[row],
            reached=reached[row],
            chunk_bytes=chunk_bytes,
        )
    return keys


def _widen(
    query: Float32[Tensor, "1 D"],
    shard: Shard,
    *,
    products: Float[Tensor, "1 S"],
    bounds: Bounds,
    before: Int64[Tensor, "1 k"],
    reached: Float32[Tensor, "1 1"],
    chunk_bytes: int,
) -> Int64[Tensor, "1 k"]:
    """Scores every passage that can reach what the shortlist's k-th hit reached."""
    values = products.float()
    columns = ((values > -torch.inf) & (bounds.upper(values) >= reached)).nonzero()[None, :, 1]
    wanted = torch.ones_like(columns, dtype=torch.bool)
    found = _score(query, shard, columns=columns, wanted=wanted, chunk_bytes=chunk_bytes)
    return order.best(torch.cat([before, found], dim=1), k=before.shape[1])


def _score(
    queries: Float32[Tensor, "Q D"],
    shard: Shard,
    *,
    columns: Int64[Tensor, "Q L"],
    wanted: Bool[Tensor, "Q L"],
    chunk_bytes: int,
) -> Int64[Tensor, "Q L"]:
    """Packed scores of the wanted columns, which come first in each row; EMPTY elsewhere."""
    keys = torch.full_like(columns, order.EMPTY)
    chunk = max(1, chunk_bytes // (4 * max(1, queries.shape[1])))
    counts = wanted.sum(dim=1).tolist()
    step = min(max(1, columns.shape[1]), chunk)
    tall = max(1, chunk // step)
    for top in range(0, len(queries), tall):
        width = max(counts[top : top + tall])
        for left in range(0, width, step):
            here = (slice(top, top + tall), slice(left, min(width, left + step)))
            rows = columns[here]
            terms = shard.vectors.index_select(0, rows.flatten()).view(*rows.shape, -1)
            scores = order.fold(terms.mul_(queries[here[0], None]))
            keys[here] = order.pack(scores, rows + shard.first_row)
    return keys.masked_fill_(~wanted, order.EMPTY)


def _unpack(keys: Int64[Tensor, "Q k"]) -> Hits:
    scores, rows = np.empty(keys.shape, dtype=np.float32), np.empty(keys.shape, dtype=np.int64)
    step = max(1, _CHUNK_BYTES["cpu"] // (16 * keys.shape[1]))
    for start in range(0, len(keys), step):
        part = slice(start, start + step)
        part_scores, part_rows = order.unpack(keys[part])
        scores[part], rows[part] = part_scores.numpy(), part_rows.numpy()
    return Hits(scores, rows)


def _shortlist_length(k: int) -> int:
    return k + max(32, k // 2)


def _plan(
    queries: Tensor, passages: Tensor, *, k: int, memory_bytes: int, device: torch.device, dtype: torch.dtype
) -> _Plan:
    """Half of the memory holds the shard, a quarter the tile of queries, the rest a scoring chunk."""
    dim, size = max(1, queries.shape[1]), dtype.itemsize
    copied = 0 if passages.dtype == torch.float32 and device.type == "cpu" else 4 * dim
    shard_rows = _share(len(passages), memory_bytes // 2 // (size * dim + copied), multiple=BLOCK)
    length = min(_shortlist_length(k), shard_rows)
    # A row of the tile: products (and their float32 copy where no block is skipped), block maxima, the
    # columns looked into with index and value, the packed hits of both sides while they are merged.
    searched = min(BLOCK * length, shard_rows)
    row_bytes = (
        shard_rows * (size + (4 if 2 * BLOCK * length >= shard_rows else 0)) + shard_rows // BLOCK * 16
    )
    row_bytes += searched * (8 + size + 4) + 80 * (length + k) + 12 * dim
    tile_rows = _share(len(queries), min(_MOST_TILE_ROWS, memory_bytes // 4 // row_bytes), multiple=1)
    chunk_bytes = min(_CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cuda"]), memory_bytes // 16)
    return _Plan(shard_rows, tile_rows, chunk_bytes)


def _share(total: int, most: int, *, multiple: int) -> int:
    """Rows a part so that parts are about equal and none exceeds `most`: a small last part is waste."""
    parts = -(-total // max(multiple, most // multiple * multiple))
    return max(1, -(-total // max(1, parts) // multiple)) * multiple


def _fast_dtype(work: int, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    fast = able.get("avx512_bf16", False) or able.get("amx_bf16", False)
    return torch.bfloat16 if fast and work >= _BFLOAT16_WORK else torch.float32


def _check(queries: Vectors, passages: Vectors, *, k: int, memory_bytes: int) -> None:
    if queries.ndim != 2 or passages.ndim != 2 or queries.shape[1] != passages.shape[1]:
        raise InputError(
            f"queries have shape {tuple(queries.shape)}, passages {tuple(passages.shape)}; "
            "expected two matrices of one width (vectors of one model)"
        )
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1 hit a query")
    if memory_bytes < SMALLEST_MEMORY:
        raise InputError(
            f"memory_bytes is {memory_bytes}; exact search needs at least {SMALLEST_MEMORY} (16 MiB)"
        )
    assert len(passages) < order.LAST_ROW


def _tensor(vectors: Vectors) -> Tensor:
    if not isinstance(vectors, np.ndarray):
        return vectors.detach()
    with warnings.catch_warnings():
        # Read-only memory maps are only read here; torch warns that it cannot know.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(vectors)

"""Exact search: the k passages of largest inner product, in bounded memory, the same bits for any tile."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import first_pass as passes
from retrieval_cl.indexing import order, shortlist
from retrieval_cl.indexing.budget import (
    CHUNK_BYTES,
    DEFAULT_MEMORY,
    SMALLEST_MEMORY,
    Plan,
    Work,
    make_plan,
    parse_memory,
    shortlist_length,
)
from retrieval_cl.indexing.hit_files import check_room, new_hits, scratch_hits
from retrieval_cl.indexing.rows import Matrix, Rows, Vectors
from retrieval_cl.indexing.tile_search import search_tile

__all__ = [
    "DEFAULT_MEMORY",
    "SMALLEST_MEMORY",
    "Matrix",
    "Vectors",
    "check_finite",
    "multiplies_bfloat16",
    "parse_memory",
    "search",
]

# A smaller search gains nothing from bfloat16, and on some processors torch sums few rows' products in it.
_BFLOAT16_WORK = 2**28
_BFLOAT16_ROWS = 16


def search(
    queries: Matrix,
    passages: Matrix,
    *,
    k: int,
    memory_bytes: int = DEFAULT_MEMORY,
    device: torch.device | str = "cpu",
    device_bytes: int | None = None,
    first_pass: torch.dtype | None = None,
    only: range | None = None,
    out: Hits | None = None,
) -> Hits:
    """Finds the k passages of largest inner product with each query; cosine where rows are unit rows.

    Exact: a first pass of matrix products names a shortlist, `order.dot` gives its scores, and where the
    bound on the first pass does not rule out every other passage, all within the bound are scored. So the
    hits depend neither on tiles, shards, memory and number of threads, nor on the dtype of the first pass.

    Args:
        queries: rows of floats; their float32 values count. One matrix, or its shards in order; memory maps
            may be larger than memory.
        passages: the same; fewer than 2**32 rows.
        k: hits a query; where it exceeds the passages, -1 and -inf fill up.
        memory_bytes: bound on the host's anonymous memory beside the arguments, result included; at least
            32 MiB. A result of more than a quarter of it (12 bytes a hit) is a memory map of a nameless
            temporary file.
        device: where to compute.
        device_bytes: bound on the memory of a GPU; None takes three quarters of what is free there.
        first_pass: dtype of the first pass; None takes bfloat16 where the processor multiplies it fast.
        only: a run of the queries to search instead of all; the result has a row for each of them.
        out: where to put the result instead, as from `hit_files.map_hits`.

    Returns:
        Scores and rows, ordered by score descending, ties by row ascending; `out` where it was given.

    Raises:
        InputError: k below 1, dims that differ, too little memory, or a row with NaN or infinity (named).
    """
    place = torch.device(device)
    rows, shards = Rows(queries, name="queries"), Rows(passages, name="passages")
    _check(rows, shards, k=k, memory_bytes=memory_bytes)
    wanted = range(len(rows)) if only is None else only
    found = min(k, max(1, len(shards)))
    dtype = first_pass or _fast_dtype(len(wanted) * len(shards) * rows.dim, place)
    if len(wanted) < _BFLOAT16_ROWS:
        dtype = torch.float32
    work = Work(
        num_queries=len(wanted),
        num_passages=len(shards),
        dim=rows.dim,
        k=found,
        first_pass=dtype.itemsize,
        copied=shards.copied_bytes(place),
        product=passes.product_bytes(dtype, place),
    )
    device_bytes = _device_budget(device_bytes, place)
    plan = make_plan(work, memory_bytes=memory_bytes, device=place, device_bytes=device_bytes)
    if out is None:
        out = (new_hits if plan.keeps_hits else scratch_hits)(len(wanted), k)
    check_room(out, len(wanted), k=k)
    for start in range(0, len(wanted), plan.wave_rows):
        wave = wanted[start : start + plan.wave_rows]
        keys = _search_wave(rows, shards, wave=wave, k=found, plan=plan, device=place, first_pass=dtype)
        _unpack(keys, out, first=start)
    return out


def check_finite(vectors: Matrix, *, name: str) -> None:
    """Raises InputError naming the first row with NaN or infinity; a memory map is read in pieces."""
    for start, part in Rows(vectors, name=name).pieces():
        shortlist.checked_norms(part.to(torch.float32), name=name, first_row=start)


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; others take several times float32's time for it."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16", False) or able.get("amx_bf16", False))


def _search_wave(
    queries: Rows,
    passages: Rows,
    *,
    wave: range,
    k: int,
    plan: Plan,
    device: torch.device,
    first_pass: torch.dtype,
) -> Int64[Tensor, "W k"]:
    """Packed hits of some queries among all passages."""
    keys = torch.full((len(wave), k), order.EMPTY)
    for start in range(0, len(passages), plan.shard_rows):
        _search_shard(
            queries, passages, keys, wave=wave, first=start, plan=plan, device=device, first_pass=first_pass
        )
    return keys


def _search_shard(
    queries: Rows,
    passages: Rows,
    keys: Int64[Tensor, "W k"],
    *,
    wave: range,
    first: int,
    plan: Plan,
    device: torch.device,
    first_pass: torch.dtype,
) -> None:
    """Updates the packed hits by those of one shard, which lives here alone: two never share the memory."""
    rows = passages.read(first, first + plan.shard_rows, device=device)
    shard = shortlist.make_shard(rows, first_row=first, first_pass=first_pass, device=device)
    compared = passes.choose(shard, tile_rows=plan.tile_rows, count=shortlist_length(keys.shape[1]))
    for start in range(wave.start, wave.stop, plan.tile_rows):
        stop = min(start + plan.tile_rows, wave.stop)
        here = slice(start - wave.start, stop - wave.start)
        tile = queries.read(start, stop, device=device).to(torch.float32)
        norms = shortlist.checked_norms(tile, name="queries", first_row=start)
        before = keys[here].to(device)
        keys[here] = search_tile(
            tile, compared, norms=norms, before=before, chunk_bytes=plan.chunk_bytes
        ).cpu()


def _unpack(keys: Int64[Tensor, "W k"], out: Hits, *, first: int) -> None:
    """Writes a wave's hits to their rows of the result; -1 and -inf beyond its width."""
    width = keys.shape[1]
    step = max(1, CHUNK_BYTES["cpu"] // (16 * width))
    for start in range(0, len(keys), step):
        scores, rows = order.unpack(keys[start : start + step])
        here = slice(first + start, first + start + len(rows))
        out.scores[here, :width], out.rows[here, :width] = scores.numpy(), rows.numpy()
        out.scores[here, width:], out.rows[here, width:] = -torch.inf, -1


def _fast_dtype(work: int, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if work >= _BFLOAT16_WORK and multiplies_bfloat16() else torch.float32


def _device_budget(device_bytes: int | None, device: torch.device) -> int:
    if device.type != "cuda":
        if device_bytes is not None:
            raise InputError(
                f"device memory is given ({device_bytes} bytes), but the device is {device.type}"
            )
        return 0
    if device_bytes is None:
        return torch.cuda.mem_get_info(device)[0] * 3 // 4
    if device_bytes < SMALLEST_MEMORY:
        raise InputError(f"device_bytes is {device_bytes}; search needs at least {SMALLEST_MEMORY} (32 MiB)")
    return device_bytes


def _check(queries: Rows, passages: Rows, *, k: int, memory_bytes: int) -> None:
    if queries.dim != passages.dim:
        raise InputError(
            f"queries have shape {(len(queries), queries.dim)}, passages {(len(passages), passages.dim)}; "
            "expected two matrices of one width (vectors of one model)"
        )
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1 hit a query")
    if memory_bytes < SMALLEST_MEMORY:
        raise InputError(
            f"memory_bytes is {memory_bytes}; exact search needs at least {SMALLEST_MEMORY} (32 MiB)"
        )
    assert len(passages) < order.LAST_ROW

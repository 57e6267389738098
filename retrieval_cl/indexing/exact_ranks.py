"""Exact search by many processes: each searches its share of the queries, all get all hits."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.ranks import any_rank, gather_values, num_ranks, rank
from retrieval_cl.indexing.exact import DEFAULT_MEMORY, search
from retrieval_cl.indexing.hit_files import check_room, new_hits, scratch_hits
from retrieval_cl.indexing.rows import Matrix, Rows

_CPU = torch.device("cpu")


def search_over_ranks(
    queries: Matrix,
    passages: Matrix,
    *,
    k: int,
    memory_bytes: int = DEFAULT_MEMORY,
    device: torch.device | str = "cpu",
    device_bytes: int | None = None,
    link: torch.device = _CPU,
    out: Hits | None = None,
) -> Hits:
    """The hits of `exact.search`, bit for bit, on every rank; all must call with the same rows.

    Args:
        queries: all of them, on every rank (memory maps cost nothing).
        passages: all of them.
        k: hits a query.
        memory_bytes: of each process, as in `exact.search`.
        device: where this rank computes.
        device_bytes: as in `exact.search`.
        link: where ranks talk to each other: the GPU under nccl.
        out: where this rank puts all hits.

    Raises:
        InputError: as `exact.search` does, on every rank that meets it; the others raise RuntimeError.
    """
    rows = Rows(queries, name="queries")
    width = -(-len(rows) // num_ranks())
    begin = min(rank() * width, len(rows))
    try:
        mine = search(
            queries,
            passages,
            k=k,
            memory_bytes=memory_bytes // 2,
            device=device,
            device_bytes=device_bytes,
            only=range(begin, min(begin + width, len(rows))),
        )
        if out is not None:
            check_room(out, len(rows), k=k)
    except BaseException:
        any_rank(True, device=link)
        raise
    if any_rank(False, device=link):
        raise RuntimeError(f"another rank failed while rank {rank()} was searching; its own error says why")
    if out is None:
        out = (new_hits if 12 * k * len(rows) <= memory_bytes // 4 else scratch_hits)(len(rows), k)
    # What goes round is held twice by each rank, for all ranks.
    step = max(1, memory_bytes // 4 // (24 * k * num_ranks()))
    for start in range(0, width, step):
        stop = min(start + step, width)
        _exchange(mine, out, start=start, stop=stop, width=width, link=link)
    return out


def _exchange(mine: Hits, out: Hits, *, start: int, stop: int, width: int, link: torch.device) -> None:
    """Rows `start` to `stop` of every rank's share, to their places among all."""
    scores = _gather(torch.from_numpy(mine.scores[start:stop]), stop - start, link=link)
    rows = _gather(torch.from_numpy(mine.rows[start:stop]), stop - start, link=link)
    for owner in range(num_ranks()):
        first = owner * width + start
        last = min(owner * width + stop, len(out.rows))
        if first < last:
            out.scores[first:last] = scores[owner, : last - first].numpy()
            out.rows[first:last] = rows[owner, : last - first].numpy()


def _gather(values: Shaped[Tensor, "R k"], count: int, *, link: torch.device) -> Shaped[Tensor, "W S k"]:
    """A share's rows from all ranks; the last shares may have fewer, which are filled up for the way."""
    padded = values.new_zeros((count, values.shape[1]))
    padded[: len(values)] = values
    return gather_values(padded.to(link)).cpu().view(num_ranks(), count, values.shape[1])

"""Search by many processes: each searches for its share of the queries, all get all hits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.ranks import gather_values, num_ranks, rank
from retrieval_cl.core.together import together
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
        InputError: as `exact.search` does on any rank.
        RankFailed: another rank failed in any other way.
    """

    def search_share(share: range) -> Hits:
        return search(
            queries,
            passages,
            k=k,
            memory_bytes=memory_bytes // 2,
            device=device,
            device_bytes=device_bytes,
            only=share,
        )

    num_queries = len(Rows(queries, name="queries"))
    return share_queries(search_share, num_queries, k=k, memory_bytes=memory_bytes // 2, link=link, out=out)


def share_queries(
    search_share: Callable[[range], Hits],
    num_queries: int,
    *,
    k: int,
    memory_bytes: int = DEFAULT_MEMORY // 2,
    link: torch.device = _CPU,
    out: Hits | None = None,
) -> Hits:
    """The hits of all queries, on every rank, each searched for by one of them; all ranks must call alike.

    Args:
        search_share: the hits of a run of the queries, by this rank.
        num_queries: of all.
        k: hits a query.
        memory_bytes: for all hits and for what goes round; hits of more than half of it lie on disk.
        link: where ranks talk to each other: the GPU under nccl.
        out: where this rank puts all hits.

    Raises:
        InputError: as `search_share` does on any rank.
        RankFailed: another rank failed in any other way.
    """
    width = -(-num_queries // num_ranks())
    begin = min(rank() * width, num_queries)
    with together(link):
        mine = search_share(range(begin, min(begin + width, num_queries)))
        if out is None:
            out = (new_hits if 12 * k * num_queries <= memory_bytes // 2 else scratch_hits)(num_queries, k)
        check_room(out, num_queries, k=k)
    # What goes round is held twice by each rank, for all ranks.
    step = max(1, memory_bytes // 2 // (24 * k * num_ranks()))
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

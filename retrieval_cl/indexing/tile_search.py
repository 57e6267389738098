"""One tile of queries against one shard of passages: shortlist, certified scores, widening where in doubt."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from retrieval_cl.indexing import order
from retrieval_cl.indexing.budget import shortlist_length
from retrieval_cl.indexing.first_pass import FirstPass
from retrieval_cl.indexing.shortlist import Shard


def search_tile(
    queries: Float32[Tensor, "Q D"],
    first: FirstPass,
    *,
    norms: Float32[Tensor, " Q"],
    before: Int64[Tensor, "Q k"],
    chunk_bytes: int,
) -> Int64[Tensor, "Q k"]:
    """Merges the shard's hits into those found before.

    Args:
        queries: on the shard's device.
        first: the first pass of the shard.
        norms: of the queries.
        before: packed hits (`order.pack`), best first, of other passages.
        chunk_bytes: of terms to hold at a time while scoring.
    """
    k, shard = before.shape[1], first.shard
    bounds = first.compare(queries, norms=norms)
    values, columns, rest = first.shortlist(shortlist_length(k))
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
            columns=first.reaching(row, reached[row]),
            before=before[row],
            chunk_bytes=chunk_bytes,
        )
    return keys


def _widen(
    query: Float32[Tensor, "1 D"],
    shard: Shard,
    *,
    columns: Int64[Tensor, "1 N"],
    before: Int64[Tensor, "1 k"],
    chunk_bytes: int,
) -> Int64[Tensor, "1 k"]:
    """Scores every passage that can reach what the shortlist's k-th hit reached."""
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
            terms = shard.vectors.index_select(0, rows.flatten()).to(torch.float32).view(*rows.shape, -1)
            scores = order.fold(terms.mul_(queries[here[0], None]))
            keys[here] = order.pack(scores, rows + shard.first_row)
    return keys.masked_fill_(~wanted, order.EMPTY)

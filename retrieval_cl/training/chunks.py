"""Chunks of a batch: which rows are embedded together, and with which random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.views import Batch, View
from retrieval_cl.encoders.packing import pack_rows
from retrieval_cl.methods.method import Method
from retrieval_cl.training.seeds import seed_all


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows of one kind of view that are embedded together.

    Attributes:
        kind: of the view; a tower may treat kinds differently.
        rows: their numbers in the view, longest first.
        tokens: rows times the longest row: what they hold once padded.
        place: number of the kind, and how many of its rows come before. It names the chunk's random numbers.
    """

    kind: str
    rows: Int64[np.ndarray, " R"]
    tokens: int
    place: tuple[int, int]


def cut_batch(batch: Batch, *, chunk_tokens: int) -> list[Chunk]:
    """Cuts every view of the whole batch into chunks of at most `chunk_tokens` tokens, padding included.

    The rows of a kind are sorted by length first, so that little is padded. A row longer than the budget is a
    chunk of its own, and so is a view without rows, which a tower embeds in a plain step too.
    """
    chunks = []
    for number, (kind, view) in enumerate(batch.views.items()):
        counts, before = np.maximum(view.inputs.counts, 1), 0
        if len(counts) == 0:
            chunks.append(Chunk(kind, np.zeros(0, dtype=np.int64), 0, (number, 0)))
        for rows in pack_rows(counts, batch_tokens=chunk_tokens):
            chunks.append(Chunk(kind, rows, len(rows) * int(counts[rows[0]]), (number, before)))
            before += len(rows)
    return chunks


def count_kept(chunks: Sequence[Chunk], *, graph_tokens: int) -> int:
    """How many chunks, counted from the last, hold at most `graph_tokens` tokens together."""
    sums = np.cumsum([chunk.tokens for chunk in reversed(chunks)])
    return int(np.searchsorted(sums, graph_tokens, side="right"))


def whole_tokens(batch: Batch) -> int:
    """Tokens of all views, each padded to its longest row: a budget that leaves every view in one piece."""
    return sum(chunk.tokens for chunk in cut_batch(batch, chunk_tokens=2**62))


def longest_row(batch: Batch) -> int:
    """Tokens of the longest row of all views, at least 1."""
    return max(1, *(int(view.inputs.counts.max(initial=0)) for view in batch.views.values()))


def embed_views(method: Method, batch: Batch, cast: AbstractContextManager[object]) -> dict[str, Tensor]:
    """The vectors of a batch in one piece, in float32 or wider; `cast` sets the precision in the tower."""
    with cast:
        embeddings = method.embed(batch)
    return {
        name: vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        for name, vectors in embeddings.items()
    }


def embed_chunk(
    method: Method, batch: Batch, cast: AbstractContextManager[object], *, chunk: Chunk, seed: int
) -> dict[str, Tensor]:
    """The vectors of a chunk, the same each time: its random numbers follow from `seed` and its place.

    So no generator's state is copied from a device, and no chunk needs that of the chunks before it.
    """
    seed_all(seed, *chunk.place)
    view = batch.views[chunk.kind]
    rows = View(view.inputs.take(chunk.rows), view.ids[torch.from_numpy(chunk.rows)])
    # One context a chunk: autocast keeps the weights it has cast, and those cast without a graph have none.
    return embed_views(method, Batch({chunk.kind: rows}, known=batch.known), cast)

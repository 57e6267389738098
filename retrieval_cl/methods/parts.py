"""Parts of a bank as methods make them: candidates of all ranks, or those of this rank's anchors alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Part
from retrieval_cl.core.ranks import gather_rows, gather_values
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings


def candidates(vectors: Float[Tensor, "C D"], ids: Int64[Tensor, " C"], *, name: str, shared: bool) -> Part:
    """Candidates with gradient: gathered from all ranks where they are shared, of this rank where not.

    Private candidates concern the anchors of this rank alone: they stay at home. Ids stay on the host:
    looking them up there makes it wait for no GPU.
    """
    if not shared:
        return Part(vectors, ids, shared=False, name=name)
    return Part(gather_rows(vectors), gather_values(ids), name=name)


def view_part(kind: str, embeddings: Embeddings, batch: Batch, *, shared: bool) -> Part:
    """The candidates that a view of the batch gives, named after it."""
    return candidates(embeddings[kind], batch.views[kind].ids, name=f"{kind}s", shared=shared)


def private_columns(bank: Bank, number: int, *, num_anchors: int) -> Int64[Tensor, "A n"] | None:
    """Each anchor's columns in a private part of the bank, whose rows come n to an anchor, anchor by anchor.

    Returns:
        The columns; None where the bank has no such part, or where that part is shared.
    """
    if len(bank.parts) <= number or bank.parts[number].shared:
        return None
    ids = bank.parts[number].ids
    columns = bank.starts[number] + torch.arange(len(ids), device=ids.device)
    return columns.view(num_anchors, -1)

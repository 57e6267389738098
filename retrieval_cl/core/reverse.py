"""The reverse direction across ranks: each anchor's positive against the anchors of all ranks."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.identity import known_hits
from retrieval_cl.core.ranks import gather_rows, gather_values, rank
from retrieval_cl.core.relations import Ragged


def reverse(contrast: Contrast, positives: Part) -> Contrast:
    """The contrast whose anchors are this rank's positives and whose bank is every rank's anchors.

    An anchor is a negative of a positive where it is not that positive's own and does not know its id: the
    relation that `info_nce(symmetric=True)` reads in one process, transposed.

    Args:
        contrast: of this rank; its `known` must have one width on all ranks.
        positives: row i belongs to anchor i; of this rank.
    """
    num_positives, device = len(positives.ids), positives.ids.device
    anchors = gather_rows(contrast.anchors)
    pairs = known_hits(gather_values(contrast.known), Bank((positives,)))
    return Contrast(
        anchors=positives.vectors,
        known=_rows_of_known(pairs.columns, pairs.anchors, num_rows=num_positives),
        # An anchor's place among all is its id here: two queries of one item are still two candidates.
        bank=Bank((Part(anchors, torch.arange(len(anchors), device=device)),)),
        targets=rank() * num_positives + torch.arange(num_positives, device=device),
        scale=contrast.scale,
        bias=contrast.bias,
        weights=contrast.weights,
    )


def _rows_of_known(
    rows: Int64[Tensor, " H"], values: Int64[Tensor, " H"], *, num_rows: int
) -> Int64[Tensor, "A P"]:
    known = Ragged.from_pairs(rows.cpu().numpy(), values.cpu().numpy(), num_rows)
    return torch.from_numpy(known.padded()).to(rows.device)

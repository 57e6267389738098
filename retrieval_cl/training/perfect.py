"""A perfect encoder, made up: items with orthonormal vectors; and what its anchors must meet, by counting.

Nothing here uses the core's id rule: this is what that rule is checked against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.floors import Counts
from retrieval_cl.core.ranks import gather_values
from retrieval_cl.core.views import Batch

Places = Int64[np.ndarray, " N"]
"""Items by the axis their vectors lie on; NOTHING where a row is no item."""
NOTHING = -1
# Of a padding row with its anchor's own positive: whoever takes it for a candidate will notice.
PADDING_COSINE = 0.8


@final
@dataclass(frozen=True, eq=False)
class PerfectEncoder:
    """Gives rows of one item the same vector, rows of two items orthogonal ones.

    Attributes:
        items: the item ids it knows, ascending; item i lies on axis i, and padding leans to the last axis.
        device: of the vectors.
    """

    items: Int64[np.ndarray, " I"]
    device: torch.device

    @classmethod
    def of(cls, batches: Sequence[Batch], *, views: tuple[str, ...], device: torch.device) -> PerfectEncoder:
        """One that knows all items in the views of the batches, over all ranks."""
        ids = [batch.views[kind].ids for batch in batches for kind in views[1:] if kind in batch.views]
        everyone = gather_values(torch.cat(ids).to(device)).cpu().numpy()
        return cls(np.unique(everyone[everyone >= 0]), device)

    @property
    def dim(self) -> int:
        """Of its vectors."""
        return len(self.items) + 1

    def embed(
        self, batch: Batch, *, views: tuple[str, ...], embeddings: Mapping[str, str]
    ) -> dict[str, Float[Tensor, "_ D"]]:
        """Vectors of the views that the batch has, by the names in `embeddings`.

        An anchor has the vector of its positive, the row beside it in `views[1]`.
        """
        positives = self.places(batch.views[views[1]].ids)
        found = {}
        for name, kind in embeddings.items():
            if kind not in batch.views:
                continue
            places = positives if kind == views[0] else self.places(batch.views[kind].ids)
            owners = np.arange(len(places)) * len(positives) // max(1, len(places))
            found[name] = self._vectors(places, positives[owners])
        return found

    def places(self, ids: Int64[Tensor, " N"]) -> Int64[np.ndarray, " N"]:
        """The axis of each id; NOTHING for padding and for items that are in no view."""
        wanted = ids.cpu().numpy()
        places = np.searchsorted(self.items, wanted)
        there = self.items[np.minimum(places, len(self.items) - 1)] == wanted
        return np.where(there, places, NOTHING)

    def items_of(self, vectors: Float[Tensor, "N D"]) -> Int64[np.ndarray, " N"]:
        """The axis each vector lies on: which item a row truly is, whatever id it is said to have."""
        if not len(vectors):
            return np.zeros(0, dtype=np.int64)
        cosines, places = vectors.max(dim=1)
        lies_on = (cosines > (1 + PADDING_COSINE) / 2) & (places < len(self.items))
        return torch.where(lies_on, places, NOTHING).cpu().numpy()

    def _vectors(
        self, places: Int64[np.ndarray, " N"], positives: Int64[np.ndarray, " N"]
    ) -> Float[Tensor, "N D"]:
        rows, is_padding = np.arange(len(places)), places == NOTHING
        vectors = np.zeros((len(places), self.dim))
        vectors[rows, np.where(is_padding, positives, places)] = np.where(is_padding, PADDING_COSINE, 1.0)
        vectors[is_padding, -1] = np.sqrt(1 - PADDING_COSINE**2)
        return torch.from_numpy(vectors).to(self.device)


def first_anchors(batch: Batch, count: int) -> Batch:
    """The batch of the first anchors alone, with their rows of each view."""
    num_anchors = len(batch.known)
    keep = min(count, num_anchors)
    views = {
        kind: replace(view, ids=view.ids[: len(view.ids) // num_anchors * keep])
        for kind, view in batch.views.items()
    }
    return Batch(views, batch.known[:keep])


def true_counts(
    contrast: Contrast, batch: Batch, encoder: PerfectEncoder, *, wanted: Places, parts: Sequence[bool]
) -> Counts:
    """What each anchor must meet, from what the rows truly are and what the batch says is known.

    Args:
        contrast: of the batch. Its anchors are the batch's rows, once or several times over.
        batch: what the contrast was made of.
        encoder: what embedded it.
        wanted: the item of each anchor's positive.
        parts: for each part of the bank whether its rows are candidates.
    """
    bank = contrast.bank
    items = np.concatenate([encoder.items_of(part.vectors) for part in bank.parts])
    sizes = [len(part.ids) for part in bank.parts]
    shared = np.repeat([part.shared for part in bank.parts], sizes)
    is_candidate = np.repeat(np.asarray(parts, dtype=bool), sizes) & (items != NOTHING)
    seen = (shared[None, :] | _named(contrast.own, len(wanted), len(items))) & is_candidate
    targets, matches = contrast.targets.cpu().numpy(), _matches(batch, encoder, items, len(wanted))
    seen[np.arange(len(targets)), targets] = False
    negatives, (more_anchors, more_columns) = seen & ~matches, (seen & matches).nonzero()
    anchors = np.concatenate([np.arange(len(targets)), more_anchors])
    columns = np.concatenate([targets, more_columns])
    # A target has cosine 1 whatever it is: that its column holds another row is to be seen in the loss.
    cosines = np.concatenate([np.ones(len(targets)), items[more_columns] == wanted[more_anchors]])
    at_one = np.bincount(columns, weights=cosines, minlength=len(items)).astype(np.int64)
    at_zero = np.bincount(columns, minlength=len(items)) - at_one
    by_column = np.stack([negatives.sum(axis=0), at_one, at_zero])
    by_column = np.where(shared, _over_ranks(by_column, encoder.device), by_column)
    return Counts(
        negatives.sum(axis=1), anchors, cosines, by_column[0, columns], by_column[1:, targets].T.copy()
    )


def _over_ranks(counts: Int64[np.ndarray, "n C"], device: torch.device) -> Int64[np.ndarray, "n C"]:
    return gather_values(torch.from_numpy(counts)[None].to(device)).sum(dim=0).cpu().numpy()


def _matches(
    batch: Batch, encoder: PerfectEncoder, items: Int64[np.ndarray, " C"], num_anchors: int
) -> Bool[np.ndarray, "A C"]:
    """Whether an anchor is known to match the item of a column."""
    num_rows, width = batch.known.shape
    known = np.zeros((num_rows, encoder.dim), dtype=bool)
    # The last axis takes what is no item: nothing is read from there, as no candidate lies on it.
    known[np.repeat(np.arange(num_rows), width), encoder.places(batch.known.reshape(-1))] = True
    rows = np.arange(num_anchors) % num_rows
    matches: Bool[np.ndarray, "A C"] = known[rows[:, None], items[None, :]]
    return matches


def _named(own: Int64[Tensor, "A K"] | None, num_anchors: int, num_columns: int) -> Bool[np.ndarray, "A C"]:
    named = np.zeros((num_anchors, num_columns + 1), dtype=bool)
    if own is not None:
        # Padding, -1, goes to a column of its own.
        named[np.arange(num_anchors)[:, None], own.cpu().numpy()] = True
    return named[:, :-1]

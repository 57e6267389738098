"""Dual encoder: queries against positives and mined negatives of all ranks (DPR, Karpukhin et al. 2020)."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.ranks import gather_rows, gather_values, num_ranks, rank
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.reverse import reverse
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.method import Embeddings, Method

TOWER_KINDS: dict[str, Literal["query", "passage"]] = {
    "query": "query",
    "positive": "passage",
    "negative": "passage",
}


@runtime_checkable
class Tower(Protocol):
    """What embeds a text: `encoders.text.TextEncoder`, or anything else that gives unit rows."""

    dim: int

    def embed(self, tokens: Ragged, *, kind: Literal["query", "passage"]) -> Float[Tensor, "B D"]:
        """Unit rows, with gradient, on the tower's device."""


class DualEncoder(Method):
    """Queries are anchors; positives and mined negatives, gathered from all ranks, are the bank.

    Attributes:
        encoder: embeds queries and passages.
        temperature: scales the cosines.
    """

    views: ClassVar[tuple[str, ...]] = ("query", "positive", "negative")

    def __init__(
        self,
        encoder: nn.Module,
        temperature: Temperature,
        *,
        symmetric: bool = False,
        in_batch: bool = True,
        private_negatives: bool = False,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        """`in_batch` False, or `private_negatives`: an anchor's negatives are those mined for itself."""
        super().__init__()
        assert in_batch or not symmetric, "the reverse direction needs the other anchors of the batch"
        self.encoder = encoder
        self.temperature = temperature
        self._symmetric = symmetric
        self._share_positives = in_batch
        self._share_negatives = in_batch and not private_negatives
        self._compute_dtype = compute_dtype

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> DualEncoder:
        """The method as the config says, around an encoder."""
        return cls(
            encoder,
            Temperature(config.temperature, learned=config.learned_temperature),
            symmetric=config.symmetric,
            in_batch=config.in_batch,
            private_negatives=config.negatives == "private",
            compute_dtype=torch.bfloat16 if config.loss_precision == "bf16" else None,
        )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Vectors of the queries, the positives and, where the batch has them, the mined negatives."""
        tower: Tower = self.encoder  # type: ignore[assignment]
        return {kind: tower.embed(view.inputs, kind=TOWER_KINDS[kind]) for kind, view in batch.views.items()}

    def contrast(self, embeddings: Embeddings, batch: Batch) -> Contrast:
        """This rank's queries against the bank; row i's target is its own positive."""
        anchors = embeddings["query"]
        parts = [_part(embeddings["positive"], batch.views["positive"], shared=self._share_positives)]
        if "negative" in batch.views:
            parts.append(_part(embeddings["negative"], batch.views["negative"], shared=self._share_negatives))
        elif not self._share_positives:
            raise InputError(
                "method.in_batch is false, but this round has no mined negatives: nothing to compare with; "
                "set training.first_mined_round to 0"
            )
        bank = Bank(tuple(parts))
        first = rank() * len(anchors) if self._share_positives else 0
        return Contrast(
            anchors=anchors,
            known=batch.known.to(anchors.device),
            bank=bank,
            targets=first + torch.arange(len(anchors), device=anchors.device),
            scale=self.temperature.scale(),
            own=_own_columns(bank, num_anchors=len(anchors)),
        )

    def loss(self, embeddings: Embeddings, batch: Batch) -> Float[Tensor, " A"]:
        """InfoNCE of each query; where symmetric, the mean with that of its positive against all queries."""
        contrast = self.contrast(embeddings, batch)
        if num_ranks() == 1 or not self._symmetric:
            return info_nce(contrast, symmetric=self._symmetric, compute_dtype=self._compute_dtype)
        positives = Part(embeddings["positive"], batch.views["positive"].ids.to(contrast.anchors.device))
        forward, back = (
            info_nce(each, compute_dtype=self._compute_dtype)
            for each in (contrast, reverse(contrast, positives))
        )
        return (forward + back) / 2

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Moves a learned temperature back into its range."""
        self.temperature.limit()


def _own_columns(bank: Bank, *, num_anchors: int) -> Int64[Tensor, "A n"] | None:
    if len(bank.parts) == 1 or bank.parts[1].shared:
        return None
    columns = bank.starts[1] + torch.arange(len(bank.parts[1].ids), device=bank.parts[1].ids.device)
    return columns.view(num_anchors, -1)


def _part(vectors: Float[Tensor, "C D"], view: View, *, shared: bool) -> Part:
    ids = view.ids.to(vectors.device)
    # Private candidates concern the anchors of this rank alone: they stay at home.
    return Part(gather_rows(vectors), gather_values(ids)) if shared else Part(vectors, ids, shared=False)

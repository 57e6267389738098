"""Dual encoder: queries against positives and mined negatives of all ranks (DPR, Karpukhin et al. 2020).

With a memory, also against the passages of past steps (cross-batch memory, Wang et al. 2020, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, info_nce
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.ranks import rank
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Bias, Temperature
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.objectives import build_bias, build_guard, build_objective
from retrieval_cl.methods.parts import private_columns, view_part

TOWER_KINDS: dict[str, Literal["query", "passage"]] = {
    "query": "query",
    "positive": "passage",
    "negative": "passage",
}
PASSAGES = ("positive", "negative")


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
        memory: passages of past steps, of all ranks, as they were embedded then; None: not kept.
    """

    views: ClassVar[tuple[str, ...]] = ("query", "positive", "negative")
    embeddings: ClassVar[Mapping[str, str]] = {kind: kind for kind in views}

    def __init__(
        self,
        encoder: nn.Module,
        temperature: Temperature,
        *,
        objective: Objective = info_nce,
        bias: Bias | None = None,
        guard: Guard | None = None,
        in_batch: bool = True,
        private_negatives: bool = False,
        memory: int = 0,
        memory_start: float = 0.0,
    ) -> None:
        """Who is compared with whom.

        Args:
            encoder: embeds queries and passages: a `Tower`.
            temperature: scales the cosines.
            objective: makes a loss per anchor of the contrast.
            bias: added to every logit.
            guard: what the objective ignores as likely positives, for statistics.
            in_batch: False: an anchor's negatives are those mined for itself.
            private_negatives: True: of the mined negatives it sees its own alone.
            memory: rows of passages of past steps that every anchor sees as well.
            memory_start: share of the steps before the first passage is remembered.
        """
        super().__init__()
        assert in_batch or not memory, "a memory is shared: with in_batch False it would have no effect"
        self.encoder = encoder
        self.temperature = temperature
        self.objective = objective
        self.bias = bias
        self.guard = guard
        self._share_positives = in_batch
        self._share_negatives = in_batch and not private_negatives
        tower: Tower = encoder  # type: ignore[assignment]
        self.memory = Queue(memory, tower.dim) if memory else None
        self._memory_start = memory_start

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> DualEncoder:
        """The method as the config says, around an encoder.

        Raises:
            InputError: a prefix of the vectors is longer than they are.
        """
        tower: Tower = encoder  # type: ignore[assignment]
        if config.matryoshka is not None and max(config.matryoshka.dims) > tower.dim:
            raise InputError(
                f"method.matryoshka.dims has {max(config.matryoshka.dims)}, but the encoder gives vectors of "
                f"{tower.dim} coordinates; valid dims are 1 to {tower.dim}"
            )
        return cls(
            encoder,
            Temperature(config.temperature, learned=config.learned_temperature),
            objective=build_objective(config),
            bias=build_bias(config),
            guard=build_guard(config),
            in_batch=config.in_batch,
            private_negatives=config.negatives == "private",
            memory=config.memory,
            memory_start=config.memory_start,
        )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Vectors of the queries, the positives and, where the batch has them, the mined negatives."""
        tower: Tower = self.encoder  # type: ignore[assignment]
        return {
            # Sources of text give token ids.
            kind: tower.embed(cast(Ragged, view.inputs), kind=TOWER_KINDS[kind])
            for kind, view in batch.views.items()
        }

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast]:
        """This rank's queries against the bank; row i's target is its own positive."""
        anchors = embeddings["query"]
        parts = [view_part("positive", embeddings, batch, shared=self._share_positives)]
        if "negative" in batch.views:
            parts.append(view_part("negative", embeddings, batch, shared=self._share_negatives))
        elif not self._share_positives:
            raise InputError(
                "method.in_batch is false, but this round has no mined negatives: nothing to compare with; "
                "set training.first_mined_round to 0"
            )
        if self.memory is not None and self.memory.filled:
            parts.append(self.memory.part(name="memory"))
        bank = Bank(tuple(parts))
        first = rank() * len(anchors) if self._share_positives else 0
        contrast = Contrast(
            anchors=anchors,
            known=batch.known,
            bank=bank,
            targets=first + torch.arange(len(anchors)),
            scale=self.temperature.scale(),
            bias=None if self.bias is None else self.bias.value,
            own=private_columns(bank, 1, num_anchors=len(anchors)),
        )
        return (contrast,)

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Moves a learned temperature back into its range, and remembers the passages of this step."""
        self.temperature.limit()
        if self.memory is None or progress < self._memory_start:
            return
        for kind in PASSAGES:
            if kind in batch.views:
                part = view_part(kind, embeddings, batch, shared=True)
                self.memory.push(part.vectors, part.ids)

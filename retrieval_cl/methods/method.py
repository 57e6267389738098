"""What the trainer knows of a method: its views, how to embed a batch, the loss of embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, weigh
from retrieval_cl.core.statistics import Statistics, measure
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.config import MethodConfig

Embeddings = Mapping[str, Tensor]
"""Name of an embedding -> its rows' vectors, [B, D]."""


class Method(nn.Module, ABC):
    """Embedding and comparing are two functions, so that a gradient cache can stand between them.

    `embed` is costly and knows nothing of the loss; `contrasts` says who is compared with whom and sees
    nothing but embeddings and ids. Neither has effects: queues and moving averages change in `after_step`
    alone.

    Attributes:
        views: the kinds of view it takes. The first two are an anchor and its positive, row by row.
        embeddings: what `embed` may give, by name: the view whose rows it embeds. One view may have several
            (MoCo: a query and a key). The first two are those of anchors and of their positives, row by row.
        objective: makes a loss per anchor of a contrast.
        guard: what it ignores as likely positives.
        loss_factor: what the loss is multiplied by: papers differ in it, and a rate belongs to a loss.
    """

    views: ClassVar[tuple[str, ...]]
    embeddings: ClassVar[Mapping[str, str]]
    objective: Objective
    guard: Guard | None = None
    loss_factor: float = 1.0

    @classmethod
    @abstractmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> Method:
        """The method as the config says, around what embeds its views."""

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """The vectors of each view of the batch, with gradient, by the names in `embeddings`.

        A row's vector must not depend on the other rows, BatchNorm aside: a gradient cache hands over a few
        rows of one view at a time.
        """

    @abstractmethod
    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast, ...]:
        """Who is compared with whom, for this rank's anchors; each has the same number of anchors.

        Where no gradient is to flow, it stops here: vectors may come with gradient whatever made them.
        """

    def loss(self, embeddings: Embeddings, batch: Batch) -> Float[Tensor, " A"]:
        """The loss of each anchor of this rank, weighted, over all its contrasts; the step takes its mean."""
        losses = [
            weigh(self.objective(contrast), contrast.weights)
            for contrast in self.contrasts(embeddings, batch)
        ]
        return self.loss_factor * torch.stack(losses).mean(dim=0)

    def sides(self, embeddings: Embeddings) -> tuple[Float[Tensor, "A D"], Float[Tensor, "A D"]]:
        """The vectors of anchors and of their positives, row by row."""
        anchors, positives = list(self.embeddings)[:2]
        return embeddings[anchors], embeddings[positives]

    def describe(self, embeddings: Embeddings, batch: Batch) -> Statistics:
        """What monitors want to know of this step's first contrast. Every rank must ask."""
        return measure(self.contrasts(embeddings, batch)[0], guard=self.guard)

    @abstractmethod
    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """What changes after the optimiser's step. `progress`: share of the steps before this one."""

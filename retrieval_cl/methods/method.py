"""What the trainer knows of a method: its views, how to embed a batch, the loss of embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.views import Batch
from retrieval_cl.methods.config import MethodConfig

Embeddings = Mapping[str, Tensor]
"""Kind of view -> its rows' vectors, [B, D]."""


class Method(nn.Module, ABC):
    """Embedding and comparing are two functions, so that a gradient cache can stand between them.

    `embed` is costly and knows nothing of the loss; `loss` is cheap and sees nothing but embeddings and ids.
    Neither has effects: queues and moving averages change in `after_step` alone.

    Attributes:
        views: the kinds of view it takes. The first two are an anchor and its positive, row by row.
    """

    views: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> Method:
        """The method as the config says, around what embeds its views."""

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """The vectors of each view of the batch, with gradient."""

    @abstractmethod
    def loss(self, embeddings: Embeddings, batch: Batch) -> Float[Tensor, " A"]:
        """The loss of each anchor of this rank; the step takes its mean."""

    @abstractmethod
    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """What changes after the optimiser's step. `progress`: share of the steps before this one."""

"""BYOL: a prediction of one view agrees with a slow twin's target of the other (Grill et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.losses import Objective
from retrieval_cl.core.momentum import Momentum, MomentumTwin
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.building import (
    build_branch,
    build_momentum,
    build_predictor,
    choose_views,
    refuse_idle_norm,
)
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import Branch, EmbedViews, renamed, views_apart
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.parts import candidates

PREDICTIONS = {"view_a": "prediction_a", "view_b": "prediction_b"}
TARGETS = {"view_a": "target_a", "view_b": "target_b"}


@final
class BYOL(Method):
    """Positives alone: no negative is drawn, nothing is gathered over ranks.

    What keeps it from collapse is the predictor, the stop of the gradient at the targets and the twin that
    moves slowly (section 3.1). The twin's BatchNorm layers take their own statistics; its parameters alone
    are averaged.

    Attributes:
        branch: the tower and its projector: the online network, without its predictor.
        predictor: from a projection to the twin's projection of the other view.
        twin: the target network.
    """

    views: ClassVar[tuple[str, ...]] = ("view_a", "view_b")
    embeddings: ClassVar[Mapping[str, str]] = {
        "prediction_a": "view_a",
        "target_b": "view_b",
        "prediction_b": "view_b",
        "target_a": "view_a",
    }
    objective: Objective = staticmethod(alignment)

    def __init__(
        self,
        branch: Branch,
        *,
        momentum: Momentum,
        predictor: nn.Module | None = None,
        loss_factor: float = 2.0,
        embed_views: EmbedViews = views_apart,
    ) -> None:
        """Who is compared with whom.

        Args:
            branch: what is trained.
            momentum: of the twin.
            predictor: None: none, and the vectors collapse.
            loss_factor: 2: the sum over both directions, as in the paper (section 3.1); 1: their mean.
            embed_views: how both views pass the branch.
        """
        super().__init__()
        self.branch = branch
        self.predictor = nn.Identity() if predictor is None else predictor
        self.twin = MomentumTwin(branch, momentum)
        self.loss_factor = loss_factor
        self._embed_views = embed_views

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> BYOL:
        """The method as the config says, around an `ImageTower`."""
        branch = build_branch(config, encoder)
        predictor = build_predictor(config, branch)
        refuse_idle_norm(config, branch, predictor)
        return cls(
            branch,
            momentum=build_momentum(config),
            predictor=predictor,
            loss_factor=config.loss_factor,
            embed_views=choose_views(config),
        )

    @property
    def encoder(self) -> nn.Module:
        """The tower that is trained."""
        return self.branch.encoder

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Predictions of both views, and the twin's targets of both."""
        predictions = self._embed_views(self._predict, batch, self.views)
        targets = self._embed_views(self.twin, batch, self.views)
        return renamed(predictions, PREDICTIONS) | renamed(targets, TARGETS)

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast, Contrast]:
        """Each direction: predictions of one view, whose target is the twin's of the other view."""
        return (
            self._contrast("view_a", "view_b", embeddings, batch),
            self._contrast("view_b", "view_a", embeddings, batch),
        )

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Moves the twin (section 3.1, eq. 1)."""
        self.twin.update(self.branch, progress=progress)

    def _predict(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.predictor(self.branch(pixels))
        return vectors

    def _contrast(self, anchor: str, positive: str, embeddings: Embeddings, batch: Batch) -> Contrast:
        anchors, ids = embeddings[PREDICTIONS[anchor]], batch.views[positive].ids
        targets = embeddings[TARGETS[positive]].detach()
        # Private, and named by no anchor: a target column is all that anyone meets.
        part = candidates(targets, ids, name=TARGETS[positive], shared=False)
        return Contrast(
            anchors=anchors,
            known=batch.known,
            bank=Bank((part,)),
            targets=torch.arange(len(anchors)),
            scale=anchors.new_ones(1),
        )

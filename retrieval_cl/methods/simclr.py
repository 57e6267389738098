"""SimCLR: two views of each image against both views of all others (Chen et al. 2020, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from retrieval_cl.core.contrast import Bank, Contrast
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, info_nce
from retrieval_cl.core.ranks import rank
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.building import build_branch, choose_views, refuse_idle_norm
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import Branch, EmbedViews, views_apart
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.objectives import build_guard, build_info_nce
from retrieval_cl.methods.parts import candidates, private_columns

VIEWS = ("view_a", "view_b")


@final
class SimCLR(Method):
    """Both views are anchors, and both, of all ranks, are the bank: 2B anchors of a batch of B images.

    With InfoNCE this is NT-Xent (eq. 1). No mask takes out an anchor's own row: it carries an id the anchor
    is known to match, as does every other view of the same image.

    Attributes:
        branch: the tower and its projector.
        temperature: scales the cosines.
    """

    views: ClassVar[tuple[str, ...]] = (*VIEWS, "negative")
    embeddings: ClassVar[Mapping[str, str]] = {kind: kind for kind in views}

    def __init__(
        self,
        branch: Branch,
        temperature: Temperature,
        *,
        objective: Objective = info_nce,
        guard: Guard | None = None,
        private_negatives: bool = False,
        embed_views: EmbedViews = views_apart,
    ) -> None:
        """Who is compared with whom.

        Args:
            branch: what is trained.
            temperature: scales the cosines.
            objective: makes a loss per anchor of the contrast.
            guard: what the objective ignores as likely positives, for statistics.
            private_negatives: True: of the mined negatives an image's views see its own alone.
            embed_views: how both views pass the branch.
        """
        super().__init__()
        self.branch = branch
        self.temperature = temperature
        self.objective = objective
        self.guard = guard
        self._share_negatives = not private_negatives
        self._embed_views = embed_views

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> SimCLR:
        """The method as the config says, around an `ImageTower`."""
        branch = build_branch(config, encoder)
        refuse_idle_norm(config, branch)
        return cls(
            branch,
            Temperature(config.temperature, learned=config.learned_temperature),
            objective=build_info_nce(config),
            guard=build_guard(config),
            private_negatives=config.negatives == "private",
            embed_views=choose_views(config),
        )

    @property
    def encoder(self) -> nn.Module:
        """The tower that is trained."""
        return self.branch.encoder

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Projections of both views and, where the batch has them, of the mined negatives."""
        return self._embed_views(self.branch, batch, VIEWS) | views_apart(self.branch, batch, ("negative",))

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast]:
        """This rank's views against all views; a row's target is the other view of its image."""
        num_images = len(batch.known)
        parts = [
            candidates(embeddings[kind], batch.views[kind].ids, name=kind, shared=True) for kind in VIEWS
        ]
        if "negative" in batch.views:
            ids = batch.views["negative"].ids
            parts.append(
                candidates(embeddings["negative"], ids, name="negatives", shared=self._share_negatives)
            )
        bank = Bank(tuple(parts))
        columns = rank() * num_images + torch.arange(num_images)
        own = private_columns(bank, len(VIEWS), num_anchors=num_images)
        contrast = Contrast(
            anchors=torch.cat([embeddings[kind] for kind in VIEWS]),
            known=batch.known.repeat(2, 1),
            bank=bank,
            targets=torch.cat([bank.starts[1] + columns, columns]),
            scale=self.temperature.scale(),
            own=None if own is None else own.repeat(2, 1),
        )
        return (contrast,)

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Moves a learned temperature back into its range."""
        self.temperature.limit()

"""MoCo: queries against keys of a slow twin, those of a queue (He et al. 2020; v2: Chen et al. 2020).

Without a queue, with a predictor and the keys of the batch it is MoCo v3 (Chen, Xie and He 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, info_nce
from retrieval_cl.core.momentum import Momentum, MomentumTwin
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.ranks import gather_values, rank
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.building import (
    build_branch,
    build_momentum,
    build_predictor,
    choose_views,
    refuse_idle_norm,
    shuffles_keys,
)
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import (
    Branch,
    EmbedViews,
    Forward,
    in_order,
    renamed,
    shuffled,
    views_apart,
)
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.objectives import build_guard, build_info_nce
from retrieval_cl.methods.parts import candidates, private_columns

QUERIES = {"view_a": "query_a", "view_b": "query_b"}
KEYS = {"view_a": "key_a", "view_b": "key_b", "negative": "key_negative"}


@final
class MoCo(Method):
    """View a asks, view b is the key; `symmetric` also the other way round.

    A query meets its own key, the mined negatives' keys, and the queue: keys of past steps, of all ranks.
    Keys of this step are pushed after it, when both directions are done: so no queue holds the twin of a
    positive under another name. A key of an earlier epoch carries the id of its image: for that image it is
    no negative.

    Attributes:
        branch: the tower and its projector: the query encoder, without its predictor.
        predictor: from a projection to a query (v3); the identity before.
        twin: the key encoder.
        temperature: scales the cosines.
        queue: the newest keys, as they were embedded then; None: not kept.
    """

    views: ClassVar[tuple[str, ...]] = ("view_a", "view_b", "negative")
    embeddings: ClassVar[Mapping[str, str]] = {
        "query_a": "view_a",
        "key_b": "view_b",
        "query_b": "view_b",
        "key_a": "view_a",
        "key_negative": "negative",
    }

    def __init__(
        self,
        branch: Branch,
        temperature: Temperature,
        *,
        momentum: Momentum,
        queue: Queue | None,
        predictor: nn.Module | None = None,
        objective: Objective = info_nce,
        guard: Guard | None = None,
        symmetric: bool = False,
        in_batch_keys: bool = False,
        private_negatives: bool = False,
        shuffle_keys: bool = False,
        loss_factor: float = 1.0,
        embed_views: EmbedViews = views_apart,
    ) -> None:
        """Who is compared with whom.

        Args:
            branch: what is trained.
            temperature: scales the cosines.
            momentum: of the twin.
            queue: for keys; None needs `in_batch_keys`.
            predictor: None: none, as before v3.
            objective: makes a loss per anchor of a contrast.
            guard: what the objective ignores as likely positives, for statistics.
            symmetric: True: both views ask, and both are keys; the loss is the mean of both directions.
            in_batch_keys: True: the keys of the other images of the step, of all ranks, are negatives too.
            private_negatives: True: of the mined negatives a query sees its own alone.
            shuffle_keys: True: keys pass the twin in another order, over all ranks, see `shuffled`.
            loss_factor: what the loss is multiplied by: v3 takes the sum of both directions times 2T.
            embed_views: how both views pass the branch, and the twin.
        """
        super().__init__()
        assert queue is not None or in_batch_keys, "a query would meet no negative"
        self.branch = branch
        self.predictor = nn.Identity() if predictor is None else predictor
        self.twin = MomentumTwin(branch, momentum)
        self.temperature = temperature
        self.queue = queue
        self.objective = objective
        self.guard = guard
        self.loss_factor = loss_factor
        self._askers = ("view_a", "view_b") if symmetric else ("view_a",)
        self._share_keys = in_batch_keys
        self._share_negatives = not private_negatives
        self._embed_views = embed_views
        self._pass: Callable[[Forward, Tensor], Tensor] = shuffled if shuffle_keys else in_order

    @classmethod
    def build(cls, config: MethodConfig, encoder: nn.Module) -> MoCo:
        """The method as the config says, around an `ImageTower`."""
        branch = build_branch(config, encoder)
        predictor = build_predictor(config, branch)
        refuse_idle_norm(config, branch, predictor)
        return cls(
            branch,
            Temperature(config.temperature, learned=config.learned_temperature),
            momentum=build_momentum(config),
            queue=Queue(config.queue, branch.dim) if config.queue else None,
            predictor=predictor,
            objective=build_info_nce(config),
            guard=build_guard(config),
            symmetric=config.symmetric,
            in_batch_keys=config.in_batch_keys,
            private_negatives=config.negatives == "private",
            shuffle_keys=shuffles_keys(config, branch),
            loss_factor=config.loss_factor,
            embed_views=choose_views(config),
        )

    @property
    def encoder(self) -> nn.Module:
        """The tower that is trained."""
        return self.branch.encoder

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Queries of the views that ask, the twin's keys of those they ask for and of mined negatives."""
        queries = self._embed_views(self._ask, batch, self._askers)
        keys = self._embed_views(self._key, batch, self._asked)
        keys |= views_apart(self._key, batch, ("negative",))
        return renamed(queries, QUERIES) | renamed(keys, KEYS)

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast, ...]:
        """A contrast for each view that asks; a query's target is its own key."""
        return tuple(
            self._contrast(asker, asked, embeddings, batch)
            for asker, asked in zip(self._askers, self._asked, strict=True)
        )

    def after_step(self, embeddings: Embeddings, batch: Batch, progress: float) -> None:
        """Limits a learned temperature, moves the twin, and takes this step's keys into the queue."""
        self.temperature.limit()
        self.twin.update(self.branch, progress=progress)
        if self.queue is not None:
            for kind in self._asked:
                self.queue.push(gather_values(embeddings[KEYS[kind]]), gather_values(batch.views[kind].ids))

    @property
    def _asked(self) -> tuple[str, ...]:
        return ("view_b", "view_a")[: len(self._askers)]

    def _ask(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.predictor(self.branch(pixels))
        return vectors

    def _key(self, pixels: Tensor) -> Tensor:
        return self._pass(self.twin, pixels)

    def _contrast(self, asker: str, asked: str, embeddings: Embeddings, batch: Batch) -> Contrast:
        anchors = embeddings[QUERIES[asker]]
        parts = [_keys(asked, embeddings, batch, shared=self._share_keys)]
        if "negative" in batch.views:
            parts.append(_keys("negative", embeddings, batch, shared=self._share_negatives))
        own = private_columns(Bank(tuple(parts)), 1, num_anchors=len(anchors))
        if self.queue is not None and self.queue.filled:
            parts.append(self.queue.part())
        first = rank() * len(anchors) if self._share_keys else 0
        return Contrast(
            anchors=anchors,
            known=batch.known,
            bank=Bank(tuple(parts)),
            targets=first + torch.arange(len(anchors)),
            scale=self.temperature.scale(),
            own=own,
        )


def _keys(kind: str, embeddings: Embeddings, batch: Batch, *, shared: bool) -> Part:
    return candidates(embeddings[KEYS[kind]].detach(), batch.views[kind].ids, name=KEYS[kind], shared=shared)

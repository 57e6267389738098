"""Faults for the collapse monitor, injected from outside: none of them is an option of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.views import Batch, View
from retrieval_cl.methods.byol import BYOL, TARGETS
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.methods.moco import MoCo
from retrieval_cl.training.run import Source

LR_FACTOR = 100.0
# No item has such an id: a key that carries it is taken for another image's.
WRONG_IDS = 10**9


@dataclass(frozen=True)
class Case:
    """One run: a method, and what is done to it.

    Attributes:
        name: in the table.
        base: the method, or "text".
        seed: of weights, order and views.
        method: settings that differ from the base's.
        augmentation: likewise.
        lr_factor: what the rate is multiplied by.
        change: done to the method when it is built.
        source: put around the source of batches.
        healthy: the sound run it is compared with, by name; None: it is one.
    """

    name: str
    base: str
    seed: int = 0
    method: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    lr_factor: float = 1.0
    change: Callable[[Method], object] = lambda method: None
    source: Callable[[Source], Source] = lambda source: source
    healthy: str | None = None


class _OpenTargets(BYOL):  # type: ignore[misc]
    """BYOL whose targets are the online network's own, with gradient: no twin and no stop of the gradient."""

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        found = super().embed(batch)
        online = self._embed_views(self.branch, batch, self.views)
        return found | {TARGETS[kind]: vectors for kind, vectors in online.items()}

    def _contrast(self, anchor: str, positive: str, embeddings: Embeddings, batch: Batch) -> Contrast:
        contrast = super()._contrast(anchor, positive, embeddings, batch)
        part = replace(contrast.bank.parts[0], vectors=embeddings[TARGETS[positive]])
        return replace(contrast, bank=Bank((part,)))


class _TwinInQueue(MoCo):  # type: ignore[misc]
    """MoCo that takes a step's keys into the queue before the loss, under ids that are nobody's."""

    def contrasts(self, embeddings: Embeddings, batch: Batch) -> tuple[Contrast, ...]:
        return tuple(_with_twins(contrast) for contrast in super().contrasts(embeddings, batch))


def _with_twins(contrast: Contrast) -> Contrast:
    keys = contrast.bank.parts[0]
    twins = Part(keys.vectors, keys.ids + WRONG_IDS, name="queue of now")
    return replace(contrast, bank=Bank((*contrast.bank.parts, twins)))


@dataclass(frozen=True)
class _ShuffledPairs:
    """A source whose second view shows other images than the first, under the ids of the first."""

    source: Source
    kind: str

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch

    def batches(self, negatives: Any, **where: Any) -> Iterator[Batch]:
        for number, batch in enumerate(self.source.batches(negatives, **where)):
            view = batch.views[self.kind]
            order = np.random.default_rng(number).permutation(len(view.ids))
            mixed = View(view.inputs.take(order), view.ids)
            yield replace(batch, views={**batch.views, self.kind: mixed})


def _open_targets(method: Method) -> None:
    method.__class__ = _OpenTargets


def _twin_in_queue(method: Method) -> None:
    method.__class__ = _TwinInQueue


def _positives_alone(method: Method) -> None:
    method.objective = alignment


def _freeze_norms(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            module.train = _stay(module)  # type: ignore[method-assign]


def _stay(module: nn.Module) -> Callable[..., nn.Module]:
    return lambda mode=True: module


def faults(seed: int) -> list[Case]:
    """Every fault, each beside the sound run of its method."""

    def case(name: str, base: str, **what: Any) -> Case:
        return Case(f"{base}: {name}", base, seed, healthy=f"{base}", **what)

    mixed = {base: lambda source: _ShuffledPairs(source, "view_b") for base in ("simclr", "moco")}
    return [
        case("no predictor", "byol", method={"predictor": None}),
        case("no stop-gradient", "byol", change=_open_targets),
        case("EMA momentum 0", "moco", method={"momentum": 0.0}),
        case("temperature 1e-3", "simclr", method={"temperature": 1e-3}),
        case("temperature 1e-3", "moco", method={"temperature": 1e-3}),
        case("positive's twin in the queue", "moco", change=_twin_in_queue),
        case("shuffled pairs", "simclr", source=mixed["simclr"]),
        case("shuffled pairs", "moco", source=mixed["moco"]),
        case("frozen BN", "simclr", change=_freeze_norms),
        case("frozen BN", "moco", change=_freeze_norms),
        case("frozen BN", "byol", change=_freeze_norms),
        case("learning rate x 100", "simclr", lr_factor=LR_FACTOR),
        case("learning rate x 100", "moco", lr_factor=LR_FACTOR),
        case("learning rate x 100", "byol", lr_factor=LR_FACTOR),
        case("no negatives", "text", change=_positives_alone),
        case("learning rate x 100", "text", lr_factor=LR_FACTOR),
        case("learning rate x 5000", "text", lr_factor=50 * LR_FACTOR),
        case("shuffled pairs", "text", source=lambda source: _ShuffledPairs(source, "positive")),
    ]


def healthy(seed: int) -> list[Case]:
    """The sound runs: each method as it is, and as other recipes have it."""
    heads = {"projector": {"preset": "simclr_v2"}}
    v3 = {"queue": 0, "in_batch_keys": True, "symmetric": True, "temperature": 0.2}
    return [
        Case("simclr", "simclr", seed),
        Case("simclr, temperature 0.1, 3 layers", "simclr", seed, {**heads, "temperature": 0.1}),
        Case("moco", "moco", seed),
        Case("moco v3", "moco", seed, {**v3, "predictor": {"hidden": 256}}),
        Case("byol", "byol", seed),
        Case("byol, momentum 0.9", "byol", seed, {"momentum": 0.9}),
        Case("text", "text", seed),
        Case("text, memory", "text", seed, {"memory": 512}),
    ]

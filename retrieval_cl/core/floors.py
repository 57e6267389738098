"""Floors: the loss of a perfect encoder, whose items have orthonormal vectors, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.losses import Objective, Positives, info_nce, sigmoid
from retrieval_cl.core.matryoshka import Matryoshka


@dataclass(frozen=True, eq=False)
class Counts:
    """What each anchor meets in the bank. Negatives have cosine 0.

    Attributes:
        negatives: of each anchor.
        anchors: the anchor of each positive. The first A positives are the targets, in the anchors' order.
        cosines: of each positive: 1 where it is the anchor's item, 0 where it is another one that matches.
        reverse: for each positive, the anchors of all ranks that have its column as a negative.
        matched: for each target's column, the anchors of all ranks that have it as a positive at cosine 1,
            and at cosine 0.
    """

    negatives: Int64[np.ndarray, " A"]
    anchors: Int64[np.ndarray, " H"]
    cosines: Float[np.ndarray, " H"]
    reverse: Int64[np.ndarray, " H"]
    matched: Int64[np.ndarray, "A 2"]

    def targets_alone(self) -> Counts:
        """The same with no positive but the targets."""
        targets = slice(len(self.negatives))
        anchors, cosines = self.anchors[targets], self.cosines[targets]
        return replace(self, anchors=anchors, cosines=cosines, reverse=self.reverse[targets])


Floor = Callable[[Counts, float, float], Float[np.ndarray, " A"]]
"""From counts, scale and bias to the loss of each anchor."""


def floor_of(objective: Objective) -> Floor | None:
    """The floor of an objective that `bare` gave; None where no closed form is known here."""
    function, settings = _taken_apart(objective)
    floor = FLOORS.get(function)
    if floor is None or not settings.keys() <= signature(floor).parameters.keys():
        return None
    return partial(floor, **settings)


def bare(objective: Objective) -> Objective:
    """The objective without what blurs the view of who is compared with whom.

    That is the precision of its products; a guard, which hides a copy of the positive only while encoders are
    good; and Matryoshka, as prefixes of orthonormal vectors are not orthonormal.
    """
    if isinstance(objective, Matryoshka):
        return bare(objective.objective)
    function, settings = _taken_apart(objective)
    kept = {key: value for key, value in settings.items() if key not in ("compute_dtype", "guard")}
    return partial(function, **kept) if kept else function


def name_of(objective: Objective) -> str:
    """The name of its function, for messages."""
    function = _taken_apart(objective)[0]
    return str(getattr(function, "__name__", type(function).__name__))


def info_nce_floor(
    counts: Counts,
    scale: float,
    bias: float,
    *,
    symmetric: bool = False,
    positives: Positives = "target",
    decoupled: bool = False,
    hardness: float = 0.0,
    debias: float = 0.0,
) -> Float[np.ndarray, " A"]:
    """log(1 + N exp(-scale)) in the plain case, log N - scale where decoupled; see `losses.info_nce`.

    Negatives that score alike weigh alike, so `hardness` changes nothing.
    """
    counts = counts.targets_alone() if positives == "target" else counts
    rule = partial(_share_loss, scale=scale, bias=bias, decoupled=decoupled, debias=debias)
    logits = scale * counts.cosines + bias
    if positives == "sum":
        same = np.bincount(counts.anchors, weights=counts.cosines)
        total, mean = _log_sums(same, np.bincount(counts.anchors) - same, scale=scale, bias=bias)
        forward = rule(total, mean, num_negatives=counts.negatives)
        total, mean = _log_sums(counts.matched[:, 0], counts.matched[:, 1], scale=scale, bias=bias)
        back = rule(total, mean, num_negatives=counts.reverse[: len(counts.negatives)])
    else:
        forward = _means(rule(logits, logits, num_negatives=counts.negatives[counts.anchors]), counts)
        back = _means(rule(logits, logits, num_negatives=counts.reverse), counts)
    return (forward + back) / 2 if symmetric else forward


def sigmoid_floor(
    counts: Counts, scale: float, bias: float, *, positives: Positives = "target"
) -> Float[np.ndarray, " A"]:
    """log(1 + exp(-scale - bias)) + N log(1 + exp(bias)), and a term for each further positive."""
    counts = counts.targets_alone() if positives == "target" else counts
    missed = np.logaddexp(0.0, -(scale * counts.cosines + bias))
    positive: Float[np.ndarray, " A"] = np.bincount(counts.anchors, weights=missed)
    loss: Float[np.ndarray, " A"] = positive + counts.negatives * float(np.logaddexp(0.0, bias))
    return loss


def alignment_floor(counts: Counts, scale: float, bias: float) -> Float[np.ndarray, " A"]:
    """0."""
    return np.zeros(len(counts.negatives))


FLOORS: Mapping[Callable[..., Any], Callable[..., Float[np.ndarray, " A"]]] = {
    info_nce: info_nce_floor,
    sigmoid: sigmoid_floor,
    alignment: alignment_floor,
}
"""Objective -> its floor, which takes the same settings; with one that it does not take there is none."""


def _share_loss(
    positives: Float[np.ndarray, " n"],
    mean_positives: Float[np.ndarray, " n"],
    *,
    num_negatives: Int64[np.ndarray, " n"],
    scale: float,
    bias: float,
    decoupled: bool,
    debias: float,
) -> Float[np.ndarray, " n"]:
    """-log of the share of positives in positives and negatives; `mean_positives`: log of their mean."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        negatives = np.log(num_negatives) + bias
        if debias:
            left = np.log(np.maximum(1 - debias * np.exp(mean_positives - bias), 0)) - math.log1p(-debias)
            negatives = negatives + np.maximum(left, -scale)
        loss: Float[np.ndarray, " n"] = (
            np.where(num_negatives > 0, negatives - positives, 0.0)
            if decoupled
            else np.logaddexp(0.0, negatives - positives)
        )
    return loss


def _log_sums(
    at_one: Float[np.ndarray, " A"] | Int64[np.ndarray, " A"],
    at_zero: Float[np.ndarray, " A"] | Int64[np.ndarray, " A"],
    *,
    scale: float,
    bias: float,
) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]]:
    """Log of the sum, and of the mean, over positives of which so many have cosine 1 and 0."""
    total = scale + bias + np.log(at_one + at_zero * np.exp(-scale))
    return total, total - np.log(at_one + at_zero)


def _means(losses: Float[np.ndarray, " H"], counts: Counts) -> Float[np.ndarray, " A"]:
    means: Float[np.ndarray, " A"] = np.bincount(counts.anchors, weights=losses) / np.bincount(counts.anchors)
    return means


def _taken_apart(objective: Objective) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """The function of an objective, and the settings that `partial` gave it."""
    if isinstance(objective, partial):
        return objective.func, objective.keywords
    return objective, {}

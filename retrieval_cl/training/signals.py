"""The signs of one look at a run, as `training.watch` measures and `training.diagnosis` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Signals:
    """One look at a run. None: not measured, not there, or no number.

    Attributes:
        step: steps done.
        warmup: steps in which the rate rises.
        lr: the peak rate.
        rows: rows that the vectors' signs were measured on; `dim`: their coordinates.
        loss: of an anchor, without the method's factor.
        chance: the loss where all candidates score alike, log(1 + negatives); 0 without negatives.
        std_ratio: 1 where unit rows spread evenly, 0 where they are all equal.
        effective_rank: directions in use, centred.
        alignment: mean squared distance of an anchor to its positive.
        uniformity: -4 (spread over the sphere) to 0 (all equal).
        pair_order: share of others' positives that lie farther from an anchor than its own; 0.5: chance.
        positive_score: mean cosine of an anchor with its positive; `negative_score`: with its negatives.
        entropy: of the softmax over candidates, in nats.
        temperature: of the softmax.
        gradients: norm of the gradient of each head, after it was limited.
        step_size: length of the step as a share of the matrices' norm.
        growth: that norm as a multiple of what it was at the start; None with LARS, where it tells nothing.
        batch_norm: a number that moves with the running statistics of the trained BatchNorm layers.
        ema_gap: distance of the twin's weights from those it follows, as a share of their norm.
        queue_fill: share of the queue's places in use; `queue_age`: mean age of its rows in steps.
    """

    step: int
    warmup: int
    lr: float
    rows: int
    dim: int
    loss: float | None = None
    chance: float | None = None
    std_ratio: float | None = None
    effective_rank: float | None = None
    alignment: float | None = None
    uniformity: float | None = None
    pair_order: float | None = None
    positive_score: float | None = None
    negative_score: float | None = None
    entropy: float | None = None
    temperature: float | None = None
    gradients: Mapping[str, float] | None = None
    step_size: float | None = None
    growth: float | None = None
    batch_norm: float | None = None
    ema_gap: float | None = None
    queue_fill: float | None = None
    queue_age: float | None = None

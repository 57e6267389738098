"""Rates of false negatives: counts over queries as a share with its interval, over a sweep of margins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Int64

_REACH = NormalDist().inv_cdf(0.975)
MARGINS: tuple[float | None, ...] = (None, 0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval.

    Attributes:
        mean: `hits / trials`.
        low: lower end.
        high: upper end.
        hits: what was counted.
        trials: of how many.
        queries: that these belong to.
    """

    mean: float
    low: float
    high: float
    hits: int
    trials: int
    queries: int


@dataclass(frozen=True)
class SweepPoint:
    """What one relative margin would do.

    Attributes:
        margin: the relative margin; None is without one.
        kept: candidates it leaves to draw from, as a share of those left without a margin.
        rate: false negatives among the negatives drawn.
    """

    margin: float | None
    kept: float
    rate: Rate


def rate_over_queries(hits: Int64[np.ndarray, " Q"], trials: Int64[np.ndarray, " Q"]) -> Rate | None:
    """Share of all trials that are hits, with a 95 % interval for other such queries; None without trials.

    Trials of one query are not independent (its false negatives come together), queries are. So this is
    Wilson's interval (Wilson 1927) with the trials divided by the design effect: the variance of the ratio
    over queries by that of as many independent trials (Kish 1965, section 5.4; Dean and Pagano 2015 for the
    Wilson interval of surveys by clusters), never below 1.

    Args:
        hits: of each query.
        trials: of each query, at least its hits.
    """
    counted = trials > 0
    hits, trials = hits[counted].astype(np.int64), trials[counted].astype(np.int64)
    if not len(trials):
        return None
    total, found = int(trials.sum()), int(hits.sum())
    share = found / total
    effective = total / _design_effect(hits, trials, share)
    centre = share + _REACH**2 / (2 * effective)
    reach = _REACH * math.sqrt(share * (1 - share) / effective + _REACH**2 / (4 * effective**2))
    scale = 1 + _REACH**2 / effective
    # At 0 and 1 the ends are exact but for rounding.
    low = 0.0 if not found else (centre - reach) / scale
    high = 1.0 if found == total else (centre + reach) / scale
    return Rate(share, low, high, found, total, len(trials))


def recommend(sweep: Sequence[SweepPoint], *, bound: float) -> SweepPoint | None:
    """The point that keeps the most while its rate, and that of every larger margin, is at most `bound`.

    None where even the largest margin's rate exceeds the bound. The rate is the estimate, not the upper end
    of its interval, which the reader sees beside it.
    """
    best = None
    for point in sorted(sweep, key=_strictness, reverse=True):
        if point.rate.mean > bound:
            break
        best = point
    return best


def _strictness(point: SweepPoint) -> float:
    return -1.0 if point.margin is None else point.margin


def _design_effect(hits: Int64[np.ndarray, " Q"], trials: Int64[np.ndarray, " Q"], share: float) -> float:
    count, total = len(trials), int(trials.sum())
    if count < 2 or share in (0.0, 1.0):
        return 1.0
    spread = float(((hits - share * trials) ** 2).sum()) * count / (count - 1) / total**2
    return max(1.0, spread / (share * (1 - share) / total))

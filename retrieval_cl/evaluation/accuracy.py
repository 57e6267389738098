"""A share of right answers with its interval and the protocol that gave it: never the number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
from jaxtyping import Bool

from retrieval_cl.evaluation.significance import Interval


@final
@dataclass(frozen=True)
class Accuracy:
    """How many were right.

    Attributes:
        interval: the share of right answers, with its 95 % interval.
        count: answers in all.
        protocol: how they were found, in a line.
    """

    interval: Interval
    count: int
    protocol: str

    def __str__(self) -> str:
        share = self.interval
        return f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}] of {self.count:,}; {self.protocol}"


def accuracy(right: Bool[np.ndarray, " Q"], *, protocol: str) -> Accuracy:
    """The share that is true, at least one value, with its Wilson interval."""
    return Accuracy(wilson_interval(int(right.sum()), len(right)), len(right), protocol)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a share (Wilson 1927): within 0 to 1, and not empty where all or none succeeded."""
    assert 0 <= successes <= trials and trials >= 1
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, rest = successes / trials, z * z / trials
    centre = (share + rest / 2) / (1 + rest)
    reach = z * math.sqrt(share * (1 - share) / trials + rest / (4 * trials)) / (1 + rest)
    # At the ends the bound is exactly 0 or 1, which rounding may miss.
    return Interval(
        share,
        0.0 if successes == 0 else centre - reach,
        1.0 if successes == trials else centre + reach,
    )

"""A share of right answers with its interval: never the number alone."""

from __future__ import annotations

import math
from statistics import NormalDist

from retrieval_cl.evaluation.significance import Interval


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

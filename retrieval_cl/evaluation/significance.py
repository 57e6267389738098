"""How sure a mean or a difference is: bootstrap interval, paired permutation test, least visible effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

# Elements of one block of resamples or permutations: enough to vectorise, few enough to stay near the cache.
_BLOCK = 2**21
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How one system differs from another over the same queries.

    Attributes:
        interval: mean of (first - second) over queries.
        p: two-sided p-value of the paired permutation test.
        wins: queries on which the first is better.
        losses: queries on which the second is better; the rest are ties.
        detectable: least mean difference that these queries show with a power of 80 % at the 5 % level.
    """

    interval: Interval
    p: float
    wins: int
    losses: int
    detectable: float


def compare(
    first: Float64[np.ndarray, " Q"], second: Float64[np.ndarray, " Q"], *, seed: int = 0
) -> Difference:
    """Compares two systems by their values on the same queries in the same order."""
    difference = first - second
    return Difference(
        interval=bootstrap_interval(difference, seed=seed),
        p=paired_permutation_test(first, second, seed=seed),
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
        detectable=minimum_detectable_effect(difference),
    )


def bootstrap_interval(
    values: Float64[np.ndarray, " Q"],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987, eq. 3.9, 6.6).

    Args:
        values: one value a query, at least one.
        confidence: share of such intervals that hold the true mean, 0 to 1.
        num_resamples: means of as many queries drawn with replacement.
        seed: of the draws.
    """
    assert len(values) and np.isfinite(values).all()
    mean = float(values.mean())
    spread = values - mean
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    means = _resampled_means(values, num_resamples=num_resamples, seed=seed)
    # Half of the ties count as below: with few distinct values many resamples equal the mean.
    below = ((means < mean).sum() + 0.5 * (means == mean).sum()) / num_resamples
    bias = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / num_resamples, 1 - 0.5 / num_resamples)))
    # The jackknife's values of a mean lie -spread / (Q - 1) from it: their skewness is that of the values.
    acceleration = float((spread**3).sum() / (6 * (spread**2).sum() ** 1.5))
    shares = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + _NORMAL.inv_cdf(tail)
        shares.append(_NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(means, shares)
    return Interval(mean, float(low), float(high))


def paired_permutation_test(
    first: Float64[np.ndarray, " Q"],
    second: Float64[np.ndarray, " Q"],
    *,
    num_permutations: int = 100_000,
    seed: int = 0,
) -> float:
    """Two-sided sign-flip test of the mean difference (Smucker et al. 2007).

    If neither system is better, each query's difference might as well have the other sign. Returns the
    share of random signs that reach the observed mean, (c + 1) / (n + 1): never 0, and 1 for equal systems.
    """
    assert first.shape == second.shape and np.isfinite(first).all() and np.isfinite(second).all()
    difference = first - second
    difference = difference[difference != 0]
    observed = abs(difference.sum())
    # Sums of the same numbers in another order are the same: this much is rounding.
    slack = 1e-12 * np.abs(difference).sum()
    reached = 0
    for sums in _flipped_sums(difference, num_permutations=num_permutations, seed=seed):
        reached += int((np.abs(sums) >= observed - slack).sum())
    return (reached + 1) / (num_permutations + 1)


def minimum_detectable_effect(
    difference: Float64[np.ndarray, " Q"], *, power: float = 0.8, level: float = 0.05
) -> float:
    """Least true mean difference that a two-sided test on so many queries finds with the given power."""
    if len(difference) < 2:
        return float("inf")
    reach = _NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)
    return reach * float(difference.std(ddof=1)) / float(np.sqrt(len(difference)))


def _resampled_means(
    values: Float64[np.ndarray, " Q"], *, num_resamples: int, seed: int
) -> Float64[np.ndarray, " R"]:
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    step = max(1, _BLOCK // len(values))
    for start in range(0, num_resamples, step):
        size = (min(step, num_resamples - start), len(values))
        drawn = rng.integers(0, len(values), size=size, dtype=np.int32)
        means[start : start + step] = values.take(drawn).mean(axis=1)
    return means


def _flipped_sums(
    difference: Float64[np.ndarray, " Q"], *, num_permutations: int, seed: int
) -> Iterator[Float64[np.ndarray, " b"]]:
    """Sums under random signs, in blocks. One random byte flips eight signs, whose 256 sums are looked up."""
    rng = np.random.default_rng(seed)
    tables = _sums_by_byte(difference)
    first = np.arange(len(tables)) * 256
    step = max(1, _BLOCK // max(1, len(tables)))
    for start in range(0, num_permutations, step):
        size = (min(step, num_permutations - start), len(tables))
        signs = rng.integers(0, 256, size=size, dtype=np.uint8)
        yield tables.ravel().take(signs + first).sum(axis=1)


def _sums_by_byte(difference: Float64[np.ndarray, " Q"]) -> Float64[np.ndarray, "G 256"]:
    """For each group of eight differences its sum under each of the 256 ways to choose their signs."""
    groups = -(-len(difference) // 8)
    padded = np.zeros(groups * 8)
    padded[: len(difference)] = difference
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    sums: Float64[np.ndarray, "G 256"] = padded.reshape(groups, 8) @ (1.0 - 2.0 * bits.T)
    return sums

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from retrieval_cl.evaluation import significance
from retrieval_cl.evaluation.significance import (
    bootstrap_interval,
    compare,
    minimum_detectable_effect,
    paired_permutation_test,
)


@pytest.mark.parametrize("count", [1, 5, 8, 11])
@pytest.mark.parametrize("kind", ["real", "binary"])
def test_permutation_test_is_close_to_trying_all_signs(count, kind):
    rng = np.random.default_rng(count)
    first = rng.random(count) if kind == "real" else rng.integers(0, 2, count).astype(float)
    second = rng.random(count) * 0.5 if kind == "real" else np.zeros(count)
    difference = first - second
    sums = [abs(np.dot(signs, difference)) for signs in itertools.product([-1, 1], repeat=count)]
    exact = np.mean(np.array(sums) >= abs(difference.sum()) - 1e-12)
    p = paired_permutation_test(first, second, num_permutations=20_000)
    assert p == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 20_000))


def test_permutation_test_agrees_with_the_t_test_on_many_queries():
    rng = np.random.default_rng(0)
    first, second = rng.random(800), rng.random(800) - 0.01
    p = paired_permutation_test(first, second)
    assert p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.006)
    assert 0.001 < p < 0.2


def test_p_is_never_zero_and_one_for_equal_systems():
    values = np.random.default_rng(0).random(500)
    assert paired_permutation_test(values, values) == 1.0
    assert paired_permutation_test(values + 1, values, num_permutations=999) == 1 / 1000


def test_p_does_not_depend_on_who_is_first_nor_on_ties():
    rng = np.random.default_rng(1)
    first, second = rng.random(40), rng.random(40)
    p = paired_permutation_test(first, second)
    assert paired_permutation_test(second, first) == p
    tied = np.full(30, 0.7)
    assert paired_permutation_test(np.append(first, tied), np.append(second, tied)) == p


def test_p_is_seeded():
    rng = np.random.default_rng(2)
    first, second = rng.random(40), rng.random(40)
    runs = [paired_permutation_test(first, second, num_permutations=500, seed=seed) for seed in (0, 0, 1, 2)]
    assert runs[0] == runs[1] and len(set(runs)) > 1


def test_p_is_uniform_where_neither_system_is_better():
    rng = np.random.default_rng(3)
    values = [
        paired_permutation_test(rng.random(60), rng.random(60), num_permutations=400, seed=seed)
        for seed in range(400)
    ]
    assert stats.kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", ["normal", "skewed", "binary"])
def test_interval_equals_scipy_bca(kind):
    rng = np.random.default_rng(4)
    values = {
        "normal": rng.standard_normal(150),
        "skewed": rng.exponential(size=60) ** 2,
        "binary": (rng.random(300) < 0.1).astype(float),
    }[kind]
    ours = bootstrap_interval(values, num_resamples=40_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=40_000, batch=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_interval_holds_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    intervals = [bootstrap_interval(rng.random(80), num_resamples=500, seed=seed) for seed in range(300)]
    held = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert 0.90 < held < 0.985


def test_interval_of_equal_values_is_a_point():
    interval = bootstrap_interval(np.full(9, 0.3))
    assert interval.low == interval.mean == interval.high


def test_block_size_bounds_memory_not_the_distribution(monkeypatch):
    rng = np.random.default_rng(6)
    first, second = rng.random(200), rng.random(200) - 0.05
    whole = compare(first, second)
    monkeypatch.setattr(significance, "_BLOCK", 5000)
    blocked = compare(first, second)
    assert blocked.p == pytest.approx(whole.p, abs=0.01)
    assert blocked.interval.low == pytest.approx(whole.interval.low, abs=0.005)


def test_comparison_counts_wins_and_losses():
    found = compare(np.array([1.0, 0.0, 1.0, 0.5]), np.array([0.0, 1.0, 0.0, 0.5]))
    assert (found.wins, found.losses) == (2, 1)
    assert found.interval.mean == 0.25
    assert found.interval.low <= 0.25 <= found.interval.high


def test_detectable_effect_is_found_with_the_power_it_says():
    rng = np.random.default_rng(7)
    sample = rng.standard_normal(400)
    effect = minimum_detectable_effect(sample / sample.std(ddof=1))
    assert effect == pytest.approx((NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) / 20)
    p = stats.ttest_1samp(rng.standard_normal((2000, 400)) + effect, 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.04)
    assert minimum_detectable_effect(np.array([1.0])) == float("inf")

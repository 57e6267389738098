"""Rates over queries against closed forms and simulations, and the margin that is recommended."""

import numpy as np
import pytest

from retrieval_cl.mining.rates import Rate, SweepPoint, rate_over_queries, recommend


def ints(*values):
    return np.array(values, dtype=np.int64)


def test_independent_trials_give_wilsons_interval():
    # One trial a query: 10 of 100, Wilson's interval as any table has it.
    rate = rate_over_queries(ints(*[1] * 10, *[0] * 90), ints(*[1] * 100))
    # Sample variance over queries against p (1 - p) / n: an effect of 100 / 99.
    assert rate.mean == 0.1 and (rate.hits, rate.trials, rate.queries) == (10, 100, 100)
    assert (rate.low, rate.high) == pytest.approx((0.0552, 0.1744), abs=5e-4)


def test_no_hit_gives_the_upper_end_of_wilson_and_a_lower_end_of_0():
    rate = rate_over_queries(ints(*[0] * 50), ints(*[4] * 50))
    z2 = 1.959964**2
    assert rate.low == 0.0 and rate.high == pytest.approx(z2 / (200 + z2), rel=1e-6)


def test_all_hits_end_at_1():
    rate = rate_over_queries(ints(*[4] * 50), ints(*[4] * 50))
    assert rate.mean == rate.high == 1.0 and 0.97 < rate.low < 1


def test_without_trials_there_is_no_rate():
    assert rate_over_queries(ints(0, 0), ints(0, 0)) is None
    assert rate_over_queries(ints(), ints()) is None


def test_queries_without_trials_do_not_count():
    assert rate_over_queries(ints(1, 0, 0), ints(2, 2, 0)).queries == 2


def test_hits_that_come_together_widen_the_interval():
    apart = rate_over_queries(ints(*[1] * 20, *[0] * 80), ints(*[4] * 100))
    together = rate_over_queries(ints(*[4] * 5, *[0] * 95), ints(*[4] * 100))
    assert apart.mean == together.mean
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_the_interval_of_clustered_trials_holds_the_true_share_as_often_as_it_says():
    generator, held = np.random.default_rng(0), 0
    for _ in range(600):
        chances = generator.beta(0.5, 4.5, size=150)  # mean 0.1, most queries near 0
        trials = generator.integers(1, 9, size=150)
        rate = rate_over_queries(generator.binomial(trials, chances), trials)
        held += rate.low <= 0.1 <= rate.high
    assert 0.92 < held / 600 < 0.985


def point(margin, kept, share):
    return SweepPoint(margin, kept, Rate(share, 0.0, 1.0, 0, 100, 10))


def test_the_recommended_margin_keeps_the_most_below_the_bound():
    sweep = [point(None, 1.0, 0.2), point(0.0, 0.9, 0.08), point(0.05, 0.7, 0.04), point(0.1, 0.5, 0.01)]
    assert recommend(sweep, bound=0.05).margin == 0.05
    assert recommend(sweep[::-1], bound=0.08).margin == 0.0
    assert recommend(sweep, bound=0.5).margin is None
    assert recommend(sweep, bound=0.005) is None


def test_a_margin_is_not_recommended_where_a_larger_one_exceeds_the_bound():
    sweep = [point(0.0, 0.9, 0.04), point(0.05, 0.7, 0.06), point(0.1, 0.5, 0.01)]
    assert recommend(sweep, bound=0.05).margin == 0.1

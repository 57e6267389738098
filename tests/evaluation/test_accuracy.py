import pytest
from scipy.stats import binomtest

from retrieval_cl.evaluation.accuracy import wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (3, 10), (8123, 10000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_equals_scipy(successes, trials, confidence):
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, trials, confidence=confidence)
    assert found.mean == successes / trials
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_interval_of_all_right_is_not_empty_and_ends_at_one():
    interval = wilson_interval(20, 20)
    z = 1.959963984540054
    assert interval.high == 1.0 and interval.low == pytest.approx(20 / (20 + z * z))

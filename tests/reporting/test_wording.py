"""Words claim no more than the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.reporting import wording
from retrieval_cl.reporting.facts import Comparison


@dataclass(frozen=True)
class Span:
    mean: float
    low: float
    high: float


def comparison(mean: float, low: float, high: float, p: float) -> Comparison:
    return Comparison("mined", "control", "recall@10", Span(mean, low, high), p)


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_difference_with_p_of_0_05_or_more_is_not_clear():
    said = plain(wording.finding(comparison(0.02, 0.001, 0.04, 0.05)))
    assert said.startswith(
        "No clear difference between hard-negative training and in-batch training in recall@10"
    )
    assert said.endswith("+2.0 points (95% interval +0.1 to +4.0, p = 0.050).")


def test_a_difference_whose_interval_holds_0_is_not_clear():
    assert wording.finding(comparison(0.02, -0.001, 0.04, 0.01)).startswith("No clear difference")


def test_a_clear_difference_says_which_way():
    better = comparison(0.013, 0.007, 0.019, 0.0004)
    worse = comparison(-0.013, -0.019, -0.007, 0.0004)
    assert plain(wording.finding(better)) == (
        "Hard-negative training is better than in-batch training in recall@10 by 1.3 points "
        "(95% interval +0.7 to +1.9, p < 0.001)."
    )
    assert "is worse than in-batch training in recall@10 by 1.3 points" in wording.finding(worse)
    assert (wording.finding_kind(better), wording.finding_kind(worse)) == ("good", "bad")


@settings(deadline=None, max_examples=80)
@given(st.floats(-0.1, 0.1), st.floats(0, 0.1), st.floats(0, 1))
def test_better_is_said_only_where_test_and_interval_agree(mean, half, p):
    one = comparison(mean, mean - half, mean + half, p)
    said = wording.finding(one)
    assert ("is better than" in said) == (p < 0.05 and mean - half > 0)
    assert ("is worse than" in said) == (p < 0.05 and mean + half < 0)
    assert said.startswith("No clear difference") != wording.is_clear(one)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (247.0, "4 min 07 s"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_durations(seconds, said):
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (1e-5, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0321, "p = 0.032"),
        (0.214, "p = 0.21"),
        (1.0, "p = 1.00"),
    ],
)
def test_p_values(p, said):
    assert plain(wording.p_value(p)) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.0132, "+1.3"), (-0.004, "\N{MINUS SIGN}0.4"), (0.0002, "0.0"), (-0.0002, "0.0")]
)
def test_points_carry_their_sign_and_zero_none(value, said):
    assert wording.points(value) == said


def test_not_finite_is_a_dash():
    assert wording.decimal(float("nan")) == "\N{EN DASH}"


def test_scores_are_judged_by_their_medians():
    def say(positives: float, in_batch: float, mined: float) -> str:
        return wording.score_finding({"positives": positives, "in-batch": in_batch, "mined": mined})

    assert "lie 50% of the way" in say(0.8, 0.0, 0.4)
    assert "nobody marked" in say(0.5, 0.0, 0.5)
    assert "has not learned" in say(0.1, 0.1, 0.1)
    assert wording.score_finding({"positives": 0.5}) == "Median cosine: positives 0.50."


def test_lists_read_as_a_sentence():
    assert [wording.listing(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_a_long_name_is_cut_and_made_readable():
    assert wording.label("x" * 99) == "x" * (wording.MAX_NAME - 1) + "\N{HORIZONTAL ELLIPSIS}"
    wording.score_label("a\ud800").encode("utf8")


def test_unknown_names_stay_as_they_are():
    assert (wording.label("my <run>"), wording.phrase("x"), wording.explanation("x")) == ("my <run>", "x", "")
    assert (wording.rule_label("new_rule"), wording.score_label("teacher")) == ("new rule", "teacher")

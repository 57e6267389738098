"""What the pictures show is what was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from retrieval_cl.reporting import plots
from retrieval_cl.reporting.curves import Arm


@dataclass(frozen=True)
class Span:
    mean: float
    low: float
    high: float


def run(name: str = "mined", *, rounds: int = 3, each: int = 20) -> Arm:
    return Arm(
        name,
        [
            {"step": step, "round": step // each, "loss": 3.0 - step / 100, "recall@10": 0.4 + step / 1000}
            for step in range(rounds * each)
        ],
    )


def words(picture: plots.Picture) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.svg)


def test_curves_name_axes_rounds_and_last_values():
    said = words(plots.loss_and_recall([run("control", rounds=1), run()]))
    for text in (
        "loss per anchor (nats)",
        "training step",
        "recall@10 on dev",
        "In-batch only",
        "Hard negatives",
    ):
        assert text in said
    assert [text for text in said if text.startswith("round ")] == ["round 0", "round 1", "round 2"]
    assert "0.459" in said


def test_one_round_has_no_border_and_one_arm_no_legend():
    said = words(plots.loss_and_recall([run(rounds=1)]))
    assert not [text for text in said if text.startswith("round") or text == "Hard negatives"]


def test_many_rounds_are_numbered_without_the_word():
    said = words(plots.loss_and_recall([run(rounds=20, each=3)]))
    assert not [text for text in said if text.startswith("round ")]
    assert "19" in said


def test_a_run_with_one_step_or_none_is_drawn():
    assert plots.loss_and_recall([Arm("a", [{"step": 1, "loss": 2.0}])]).alt.endswith(
        "recall@10 not measured."
    )
    plots.loss_and_recall([Arm("a", [])])
    plots.health_curves([Arm("a", [{"step": 1, "std_ratio": 0.9}])], dim=64)


def test_alt_text_tells_where_curves_begin_and_end():
    assert "loss 3 to 2.41, recall@10 0.4 to 0.459" in plots.loss_and_recall([run()]).alt


def test_smoothing_keeps_a_constant_and_a_line_within():
    np.testing.assert_allclose(plots._smooth(np.full(95, 2.5)), 2.5)
    line = np.arange(100.0)
    np.testing.assert_allclose(plots._smooth(line)[5:-5], line[5:-5])


@pytest.mark.parametrize("n", [1, 2, 9, 10, 57])
def test_smoothing_is_the_mean_of_the_neighbours_there_are(n):
    values = np.random.default_rng(n).standard_normal(n)
    half = (max(1, n // 10) | 1) // 2
    slow = [values[max(0, place - half) : place + half + 1].mean() for place in range(n)]
    np.testing.assert_allclose(plots._smooth(values), slow, rtol=0, atol=1e-12)


def test_scores_that_are_not_finite_are_left_out():
    found = plots.finite_scores({"positives": [0.5, float("nan")], "mined": [float("-inf")], "in-batch": []})
    assert {name: values.tolist() for name, values in found.items()} == {"positives": [0.5]}


def test_histograms_name_groups_and_medians():
    picture = plots.score_histograms(plots.finite_scores({"positives": [0.7, 0.8, 0.9], "mined": [0.5]}))
    assert picture.alt == "Histograms of scores. Medians: positives 0.80, mined negatives 0.50."
    assert {"cosine of query and passage", "share of pairs", "positives", "mined negatives"} <= set(
        words(picture)
    )


def test_equal_scores_are_drawn():
    plots.score_histograms(plots.finite_scores({"positives": [1.0, 1.0]}))


def test_intervals_write_each_mean_and_skip_what_is_missing():
    results = {
        "bm25": {"recall@10": Span(0.5, 0.4, 0.6)},
        "mined": {"recall@10": Span(0.7, 0.65, 0.75), "mrr@10": Span(0.3, 0.2, 0.4)},
    }
    picture = plots.metric_intervals(results, metrics=["recall@10", "mrr@10"])
    assert [text for text in words(picture) if text in ("0.500", "0.700", "0.300")] == [
        "0.500",
        "0.700",
        "0.300",
    ]
    assert (
        "recall@10: BM25 0.400 to 0.600, Hard negatives 0.650 to 0.750; mrr@10: Hard negatives" in picture.alt
    )


def test_health_shows_the_zone_of_collapse_and_the_bounds():
    records = [
        {"step": step, "std_ratio": 0.9, "effective_rank": 50, "alignment": 0.5, "uniformity": -3}
        for step in (1, 2)
    ]
    said = words(plots.health_curves([Arm("mined", records)], dim=64))
    assert said.count("collapse") == 3
    assert {"evenly spread", "all 64", "unrelated pairs", "uniform"} <= set(said)

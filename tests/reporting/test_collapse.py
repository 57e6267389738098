"""The verdict on collapse agrees with spaces that are known to be healthy or collapsed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retrieval_cl.core.health import measure_health
from retrieval_cl.reporting.collapse import collapse_verdict, signals
from retrieval_cl.reporting.curves import Arm

DIM = 64


def verdict_of(anchors: torch.Tensor, positives: torch.Tensor) -> tuple[str, str]:
    health = dataclasses.asdict(measure_health(anchors, positives))
    found = collapse_verdict(Arm("mined", [{"step": 1, "health": health}]), dim=anchors.shape[1])
    assert found is not None
    return found


def noise(seed: int, *, rows: int = 512) -> torch.Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def test_vectors_spread_over_the_sphere_show_no_collapse():
    kind, said = verdict_of(noise(0), noise(0) + 0.3 * noise(1))
    assert kind == "good"
    assert said.startswith("Hard negatives: no sign of collapse.")


def test_vectors_that_are_nearly_equal_are_a_collapse():
    kind, said = verdict_of(1 + 0.05 * noise(0), 1 + 0.05 * noise(1))
    assert kind == "bad"
    assert "spread and uniformity" in said


def test_vectors_on_two_axes_are_a_collapse_of_the_rank():
    flat = noise(0)
    flat[:, 2:] *= 1e-3
    kind, said = verdict_of(flat, flat)
    assert kind == "bad"
    assert "effective rank" in said.partition(". At the end")[0]


def test_the_last_value_counts():
    arm = Arm("a", [{"step": 1, "std_ratio": 0.1}, {"step": 2, "std_ratio": 0.9}])
    assert collapse_verdict(arm, dim=DIM) == ("good", "a: no sign of collapse. At the end: spread 0.90.")


def test_nothing_measured_nothing_said():
    assert collapse_verdict(Arm("a", [{"step": 1, "alignment": 0.5}]), dim=DIM) is None


@pytest.mark.parametrize("dim", [2, 256, 4096])
def test_marks_and_zones_lie_on_their_axes(dim):
    for signal in signals(dim):
        low, high = signal.limits
        assert low < signal.mark[0] < high
        if signal.bad is not None:
            assert low <= signal.bad[0] < signal.bad[1] < high or signal.bad[1] == high
            assert not signal.bad[0] <= signal.mark[0] <= signal.bad[1]

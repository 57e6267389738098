import math
from functools import partial

import numpy as np
import pytest
import torch

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.distillation import margin_mse
from retrieval_cl.core.floors import Counts, bare, floor_of, name_of
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.matryoshka import matryoshka


def counts_of(*, negatives=5, same=0, other=0, reverse=3):
    """One anchor; `same` and `other` further positives at cosine 1 and 0."""
    cosines = np.array([1.0] * (1 + same) + [0.0] * other)
    return Counts(
        negatives=np.array([negatives]),
        anchors=np.zeros(len(cosines), dtype=np.int64),
        cosines=cosines,
        reverse=np.full(len(cosines), reverse),
        matched=np.array([[1, 0]]),
    )


def floor(objective, counts, *, scale=2.0, bias=0.0):
    return float(floor_of(objective)(counts, scale, bias)[0])


def test_closed_forms_of_info_nce():
    e = math.exp(-2.0)
    assert floor(info_nce, counts_of()) == pytest.approx(math.log(1 + 5 * e), rel=1e-12)
    assert floor(partial(info_nce, symmetric=True), counts_of()) == pytest.approx(
        (math.log(1 + 5 * e) + math.log(1 + 3 * e)) / 2, rel=1e-12
    )
    assert floor(partial(info_nce, decoupled=True), counts_of()) == pytest.approx(math.log(5) - 2, rel=1e-12)
    assert floor(partial(info_nce, hardness=3.0), counts_of()) == floor(info_nce, counts_of())
    assert floor(info_nce, counts_of(negatives=0)) == 0.0
    assert floor(partial(info_nce, decoupled=True), counts_of(negatives=0)) == 0.0


def test_debiased_floor_is_corrected_down_to_its_least():
    scale, tau = 0.5, 0.1
    corrected = (5 - 5 * tau * math.exp(scale)) / (1 - tau)
    found = floor(partial(info_nce, debias=tau), counts_of(), scale=scale)
    assert found == pytest.approx(math.log(1 + corrected * math.exp(-scale)), rel=1e-12)
    least = math.log(1 + 5 * math.exp(-20.0) * math.exp(-20.0))
    assert floor(partial(info_nce, debias=tau), counts_of(), scale=20.0) == pytest.approx(least, rel=1e-12)


def test_further_positives_enter_as_the_objective_says():
    counts, e = counts_of(same=1, other=2), math.exp(-2.0)
    assert floor(info_nce, counts) == floor(info_nce, counts_of())
    each = (2 * math.log(1 + 5 * e) + 2 * math.log(1 + 5)) / 4
    assert floor(partial(info_nce, positives="mean"), counts) == pytest.approx(each, rel=1e-12)
    together = math.log(1 + 5 / (2 * math.exp(2.0) + 2))
    assert floor(partial(info_nce, positives="sum"), counts) == pytest.approx(together, rel=1e-12)


def test_closed_forms_of_sigmoid_and_alignment():
    counts, b = counts_of(same=1, other=2), -1.5

    def missed(logit):
        return math.log1p(math.exp(-logit))

    negatives = 5 * math.log1p(math.exp(b))
    assert floor(sigmoid, counts, bias=b) == pytest.approx(missed(2 + b) + negatives, rel=1e-12)
    assert floor(partial(sigmoid, positives="sum"), counts, bias=b) == pytest.approx(
        2 * missed(2 + b) + 2 * missed(b) + negatives, rel=1e-12
    )
    assert floor(alignment, counts) == 0.0


def test_floor_is_finite_and_keeps_its_digits_at_any_scale():
    for scale in (1e-4, 1.0, 50.0, 1e4):
        for settings in ({}, {"debias": 0.1}, {"positives": "sum"}, {"decoupled": True}):
            assert math.isfinite(
                floor(partial(info_nce, **settings), counts_of(same=1, other=1), scale=scale)
            )
    assert floor(info_nce, counts_of(), scale=50.0) == pytest.approx(5 * math.exp(-50.0), rel=1e-12)


def test_bias_cancels_in_info_nce():
    for settings in ({}, {"debias": 0.1}, {"positives": "sum"}, {"decoupled": True}):
        objective = partial(info_nce, **settings)
        with_bias = floor(objective, counts_of(same=1, other=1), scale=0.5, bias=-3.0)
        assert with_bias == pytest.approx(floor(objective, counts_of(same=1, other=1), scale=0.5), rel=1e-12)


@pytest.mark.parametrize("objective", [margin_mse, lambda contrast: contrast.anchors.sum(dim=1)])
def test_objective_without_a_closed_form_has_no_floor(objective):
    assert floor_of(bare(objective)) is None


def test_setting_that_the_floor_does_not_take_leaves_none():
    assert floor_of(partial(info_nce, unheard_of=1)) is None


def test_bare_objective_has_no_guard_precision_or_prefixes():
    guarded = partial(info_nce, symmetric=True, guard=Guard(fraction=0.9), compute_dtype=torch.bfloat16)
    stripped = bare(matryoshka(guarded, dims=[2, 4]))
    assert stripped.func is info_nce and stripped.keywords == {"symmetric": True}
    assert bare(info_nce) is info_nce
    assert name_of(guarded) == name_of(info_nce) == "info_nce"


def test_objectives_reach_their_floors():
    """Anchor i has item i of four orthonormal ones; the bank holds item 0 twice; 3 also matches anchor 1."""
    axes, ids = torch.eye(4, dtype=torch.float64), torch.arange(4)
    bank = Bank((Part(axes, ids), Part(axes[:1], ids[:1])))
    known = torch.tensor([[0, -1], [1, 3], [2, -1], [3, -1]])
    counts = Counts(
        negatives=np.array([3, 3, 4, 4]),
        anchors=np.array([0, 1, 2, 3, 0, 1]),
        cosines=np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
        reverse=np.array([3, 3, 3, 2, 3, 2]),
        matched=np.array([[1, 0], [1, 0], [1, 0], [1, 1]]),
    )
    scale = torch.tensor([1.7], dtype=torch.float64)
    contrast = Contrast(axes, known, bank, ids, scale)
    settings = [
        {"symmetric": symmetric, "positives": positives, "decoupled": decoupled, "debias": debias}
        for symmetric in (False, True)
        for positives in ("target", "mean", "sum")
        for decoupled in (False, True)
        for debias in (0.0, 0.05)
    ]
    objectives = [*(partial(info_nce, **one) for one in settings), sigmoid, partial(sigmoid, positives="sum")]
    for objective in objectives:
        expected = torch.from_numpy(floor_of(objective)(counts, 1.7, 0.0))
        torch.testing.assert_close(objective(contrast), expected, rtol=1e-10, atol=1e-12)

import math

import pytest
import torch
from slow_loops import difference
from torch.nn.functional import logsigmoid, normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.losses import info_nce, sigmoid

SCALES = [1.0, 5.0, 20.0]


def in_batch(rows, *, scale, ids=None, bias=None):
    """Each row against all rows, itself its target."""
    ids = torch.arange(len(rows)) if ids is None else ids
    scale = torch.tensor([scale], dtype=rows.dtype)
    bias = None if bias is None else torch.tensor([bias], dtype=rows.dtype)
    bank = Bank((Part(rows, ids),))
    return Contrast(rows, ids[:, None], bank, torch.arange(len(rows)), scale, bias=bias)


def one_anchor(cosines, *, scale, num_positives=1):
    """One anchor against columns of given cosines, of which the first ones are its positives."""
    cosines = torch.tensor(cosines, dtype=torch.float64)
    columns = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)
    ids = torch.arange(len(columns)).clamp_min(num_positives - 1)
    anchors = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    bank, known = Bank((Part(columns, ids),)), torch.tensor([[num_positives - 1]])
    return Contrast(anchors, known, bank, torch.tensor([0]), torch.tensor([scale], dtype=torch.float64))


def equal_to(found, wanted):
    return torch.allclose(found, torch.full_like(found, wanted), rtol=1e-12, atol=0)


SAME_WHERE_NEGATIVES_ARE_EQUAL = [{}, {"symmetric": True}, {"hardness": 3.0}]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("keywords", [*SAME_WHERE_NEGATIVES_ARE_EQUAL, {"debias": 0.9}], ids=str)
def test_identical_rows_give_log_n(scale, keywords):
    rows = torch.eye(4, dtype=torch.float64)[:1].expand(6, 4)
    assert equal_to(info_nce(in_batch(rows, scale=scale), **keywords), math.log(6))
    assert equal_to(info_nce(in_batch(rows, scale=scale), decoupled=True, **keywords), math.log(5))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("keywords", SAME_WHERE_NEGATIVES_ARE_EQUAL, ids=str)
def test_orthonormal_items_give_the_floor_of_each_option(scale, keywords):
    contrast, others = in_batch(torch.eye(6, dtype=torch.float64), scale=scale), 5
    assert equal_to(info_nce(contrast, **keywords), math.log1p(others * math.exp(-scale)))
    assert equal_to(info_nce(contrast, decoupled=True, **keywords), math.log(others) - scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("debias", [0.001, 0.1, 0.5])
def test_debiased_sum_is_corrected_by_the_positive_down_to_its_floor(scale, debias):
    contrast, others = in_batch(torch.eye(6, dtype=torch.float64), scale=scale), 5
    corrected = others * (1 - debias * math.exp(scale)) / (1 - debias)
    total = max(corrected, others * math.exp(-scale))
    assert equal_to(info_nce(contrast, debias=debias), math.log1p(total * math.exp(-scale)))
    assert equal_to(info_nce(contrast, debias=debias, decoupled=True), math.log(total) - scale)


def test_the_cases_of_debias_lie_on_both_sides_of_its_floor():
    above = [debias * math.exp(scale) < 1 for scale in SCALES for debias in (0.001, 0.1, 0.5)]
    assert any(above) and not all(above)


@pytest.mark.parametrize("bias", [-4.0, 7.0])
@pytest.mark.parametrize("keywords", [{"debias": 0.5}, {"debias": 0.01, "hardness": 2.0}], ids=str)
def test_the_bias_cancels_above_and_below_the_floor_of_debias(bias, keywords):
    rows = torch.eye(6, dtype=torch.float64)
    plain = info_nce(in_batch(rows, scale=5.0), **keywords)
    assert torch.allclose(info_nce(in_batch(rows, scale=5.0, bias=bias), **keywords), plain, rtol=1e-12)


@pytest.mark.parametrize("keywords", [{"hardness": 1e-13}, {"debias": 1e-13}], ids=str)
@pytest.mark.parametrize("symmetric", [False, True])
def test_vanishing_hardness_and_debias_are_none(keywords, symmetric):
    random = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(7, 5, generator=random, dtype=torch.float64), dim=1)
    contrast = in_batch(rows, scale=3.0)
    plain = info_nce(contrast, symmetric=symmetric)
    assert difference(info_nce(contrast, symmetric=symmetric, **keywords), plain) < 1e-11


def test_great_hardness_counts_every_negative_as_the_hardest():
    contrast = one_anchor([0.5, 0.9, 0.1, -0.6], scale=2.0)
    floor = math.log1p(3 * math.exp(2.0 * (0.9 - 0.5)))
    assert equal_to(info_nce(contrast, hardness=1e3), floor)


def test_hardness_weighs_relative_to_the_mean_weight():
    contrast = one_anchor([0.5, 0.9, 0.1], scale=2.0)
    weights = [math.exp(0.7 * 1.8), math.exp(0.7 * 0.2)]
    total = 2 * (weights[0] * math.exp(1.8) + weights[1] * math.exp(0.2)) / sum(weights)
    assert equal_to(info_nce(contrast, hardness=0.7), math.log1p(total / math.e))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_copies_of_each_item_are_averaged_or_summed(scale, symmetric):
    copies, items = 3, 4
    rows = torch.eye(items, dtype=torch.float64).repeat(copies, 1)
    contrast = in_batch(rows, scale=scale, ids=torch.arange(items).repeat(copies))
    others = copies * (items - 1) * math.exp(-scale)
    for positives, floor in [("target", others), ("mean", others), ("sum", others / copies)]:
        assert equal_to(info_nce(contrast, positives=positives, symmetric=symmetric), math.log1p(floor))


def test_several_positives_of_unequal_score():
    contrast = one_anchor([0.8, 0.2, 0.5, -0.3], scale=3.0, num_positives=2)
    # Columns 0 and 1 carry the known id.
    p, q, negatives = math.exp(2.4), math.exp(0.6), math.exp(1.5) + math.exp(-0.9)
    mean = (math.log1p(negatives / p) + math.log1p(negatives / q)) / 2
    assert equal_to(info_nce(contrast, positives="target"), math.log1p(negatives / p))
    assert equal_to(info_nce(contrast, positives="mean"), mean)
    assert equal_to(info_nce(contrast, positives="sum"), math.log1p(negatives / (p + q)))
    decoupled = math.log(negatives) - 1.5
    assert equal_to(info_nce(contrast, positives="mean", decoupled=True), decoupled)
    corrected = (negatives - 0.1 * 2 * (p + q) / 2) / 0.9
    wanted = math.log1p(corrected / (p + q))
    assert corrected > 2 * math.exp(-3.0)
    assert equal_to(info_nce(contrast, positives="sum", debias=0.1), wanted)


@pytest.mark.parametrize("bias", [-10.0, 0.0, 3.0])
@pytest.mark.parametrize("scale", SCALES)
def test_sigmoid_of_orthonormal_items_is_the_closed_form(scale, bias):
    contrast, others = in_batch(torch.eye(6, dtype=torch.float64), scale=scale, bias=bias), 5
    both = torch.tensor([scale + bias, -bias], dtype=torch.float64)
    right, wrong = (-logsigmoid(both)).tolist()
    assert equal_to(sigmoid(contrast), right + others * wrong)


def test_sigmoid_sums_over_every_positive_where_told():
    contrast = one_anchor([0.8, 0.2, 0.5], scale=3.0, num_positives=2)
    logits = torch.tensor([2.4, 0.6, -1.5], dtype=torch.float64)
    target, other, negative = (-logsigmoid(logits)).tolist()
    assert equal_to(sigmoid(contrast), target + negative)
    assert equal_to(sigmoid(contrast, positives="sum"), target + other + negative)


def test_a_positive_twice_among_the_known_ids_counts_once():
    contrast = one_anchor([0.8, 0.2, 0.5], scale=3.0, num_positives=2)
    twice = torch.cat([contrast.known, contrast.known, contrast.known.new_tensor([[-1]])], dim=1)
    again = Contrast(contrast.anchors, twice, contrast.bank, contrast.targets, contrast.scale)
    for positives in ("mean", "sum"):
        assert torch.equal(info_nce(again, positives=positives), info_nce(contrast, positives=positives))
    assert torch.equal(sigmoid(again, positives="sum"), sigmoid(contrast, positives="sum"))

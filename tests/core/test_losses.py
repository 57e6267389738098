import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, converted, difference, draw_contrast, leaves, slow_info_nce
from torch.nn.functional import cross_entropy, normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.losses import info_nce, weigh

NAMES = [field.name for field in fields(Options)]
CASES = [(), *((name,) for name in NAMES), *itertools.combinations(NAMES, 2), tuple(NAMES)]


def loss_and_gradients(loss, contrast, *, symmetric):
    per_anchor = loss(contrast, symmetric=symmetric)
    # Unequal weights: a mean would let errors of single rows cancel.
    weights = torch.linspace(0.5, 2.0, len(per_anchor), dtype=per_anchor.dtype)
    return per_anchor, torch.autograd.grad((per_anchor * weights).sum(), leaves(contrast), allow_unused=True)


def assert_equal_to_slow_loop(contrast, *, symmetric, tolerance):
    found, found_gradients = loss_and_gradients(info_nce, contrast, symmetric=symmetric)
    exact = converted(contrast, torch.float64)
    wanted, wanted_gradients = loss_and_gradients(slow_info_nce, exact, symmetric=symmetric)
    assert found.dtype == contrast.anchors.dtype
    assert difference(found, wanted) < tolerance
    for gradient, reference in zip(found_gradients, wanted_gradients, strict=True):
        # The bias cancels in InfoNCE: both gradients are rounding around 0.
        reference = torch.zeros_like(gradient) if reference is None else reference
        if float(reference.abs().max()) > 1e-10:
            assert difference(gradient, reference) < tolerance
        else:
            assert float(gradient.abs().max()) < 1e-5


@pytest.mark.parametrize("names", CASES, ids="+".join)
def test_every_pair_of_options_equals_the_slow_loop_in_float64(names):
    options = Options(**dict.fromkeys(names, True))
    contrast = draw_contrast(options, seed=len(names))
    assert_equal_to_slow_loop(contrast, symmetric=options.symmetric, tolerance=1e-12)


@pytest.mark.parametrize("names", [(), ("symmetric",), tuple(NAMES)], ids="+".join)
def test_float32_equals_the_float64_slow_loop(names):
    options = Options(**dict.fromkeys(names, True))
    contrast = draw_contrast(options, seed=4, dtype=torch.float32, scale=5.0)
    assert_equal_to_slow_loop(contrast, symmetric=options.symmetric, tolerance=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    flags=st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)),
    seed=st.integers(0, 10_000),
    num_anchors=st.integers(1, 9),
    dim=st.integers(1, 6),
    scale=st.sampled_from([0.01, 1.0, 20.0, 100.0]),
)
def test_any_shape_and_relation_equals_the_slow_loop(flags, seed, num_anchors, dim, scale):
    options = Options(*flags)
    contrast = draw_contrast(options, seed=seed, num_anchors=num_anchors, dim=dim, scale=scale)
    found = info_nce(contrast, symmetric=options.symmetric).detach()
    wanted = slow_info_nce(contrast, symmetric=options.symmetric).detach()
    assert float((found - wanted).abs().max()) < 1e-11 * max(1.0, scale)


def unit_rows(number, dim, seed=0):
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(number, dim, generator=random, dtype=torch.float64), dim=1)


def in_batch(anchors, positives, *, scale=20.0, ids=None):
    """Row i's target is column i."""
    ids = torch.arange(len(positives)) if ids is None else ids
    targets = torch.arange(len(anchors))
    scale = torch.tensor([scale], dtype=anchors.dtype)
    return Contrast(anchors, ids[targets][:, None], Bank((Part(positives, ids),)), targets, scale)


def test_distinct_ids_give_plain_cross_entropy():
    anchors, bank = unit_rows(6, 8), unit_rows(15, 8, seed=1)
    wanted = cross_entropy(20.0 * anchors @ bank.T, torch.arange(6), reduction="none")
    assert difference(info_nce(in_batch(anchors, bank)), wanted) < 1e-13


def test_the_target_is_no_negative_even_where_its_id_is_not_known():
    plain = in_batch(unit_rows(6, 8), unit_rows(15, 8, seed=1))
    unknown = replace(plain, known=torch.full((6, 1), -1))
    assert torch.equal(info_nce(unknown, symmetric=True), info_nce(plain, symmetric=True))


def test_identical_rows_give_log_of_the_number_of_candidates():
    rows = unit_rows(1, 8).expand(12, 8)
    for symmetric in (False, True):
        loss = info_nce(in_batch(rows, rows), symmetric=symmetric)
        assert torch.allclose(loss, torch.full_like(loss, math.log(12)), rtol=1e-14)


def test_identical_views_give_log_of_2n_minus_1_because_an_anchor_is_not_its_own_negative():
    n = 5
    rows = unit_rows(1, 4).expand(2 * n, 4)
    # Rows i of both views show item i: the other view is the target, the row itself is known.
    ids = torch.arange(n).repeat(2)
    targets = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    bank = Bank((Part(rows, ids),))
    contrast = Contrast(rows, ids[:, None], bank, targets, torch.tensor([7.0]).double())
    loss = info_nce(contrast)
    assert torch.allclose(loss, torch.full_like(loss, math.log(2 * n - 1)), rtol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 20.0, 1000.0])
def test_orthonormal_items_give_the_closed_form_floor(scale):
    rows = torch.eye(9, dtype=torch.float64)
    loss = info_nce(in_batch(rows, rows, scale=scale), symmetric=True)
    floor = math.log1p(8 * math.exp(-scale))
    assert torch.allclose(loss, torch.full_like(loss, floor), rtol=1e-12, atol=0)


def test_duplicate_positive_is_no_negative():
    rows = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]]
    twins = in_batch(rows, rows, scale=1000.0, ids=torch.tensor([0, 0, 1, 2]))
    strangers = in_batch(rows, rows, scale=1000.0)
    assert float(info_nce(twins).max()) < 1e-12
    assert torch.allclose(info_nce(strangers)[:2], torch.full((2,), math.log(2.0), dtype=torch.float64))


def test_padding_columns_change_nothing():
    anchors, bank = unit_rows(4, 6), unit_rows(9, 6, seed=1)
    plain = in_batch(anchors, bank)
    padded = replace(plain, bank=Bank((*plain.bank.parts, Part(anchors, torch.full((4,), -1)))))
    for symmetric in (False, True):
        assert torch.equal(info_nce(plain, symmetric=symmetric), info_nce(padded, symmetric=symmetric))


def test_minus_one_among_known_ids_matches_nothing():
    plain = in_batch(unit_rows(4, 6), unit_rows(9, 6, seed=1))
    padded = replace(plain, known=torch.cat([plain.known, torch.full((4, 3), -1)], dim=1))
    assert torch.equal(info_nce(plain), info_nce(padded))


def test_order_of_columns_changes_nothing():
    plain = in_batch(unit_rows(4, 6), unit_rows(9, 6, seed=1))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    part = plain.bank.parts[0]
    shuffled = replace(
        plain,
        bank=Bank((Part(part.vectors[order], part.ids[order]),)),
        targets=order.argsort()[plain.targets],
    )
    for symmetric in (False, True):
        wanted = info_nce(plain, symmetric=symmetric)
        assert difference(info_nce(shuffled, symmetric=symmetric), wanted) < 1e-13


def test_how_the_bank_is_cut_into_parts_changes_nothing():
    plain = in_batch(unit_rows(4, 6), unit_rows(9, 6, seed=1))
    part = plain.bank.parts[0]
    sizes = [4, 0, 2, 3]
    cut = zip(part.vectors.split(sizes), part.ids.split(sizes), strict=True)
    parts = replace(plain, bank=Bank(tuple(Part(vectors, ids) for vectors, ids in cut)))
    for symmetric in (False, True):
        wanted = info_nce(plain, symmetric=symmetric)
        assert difference(info_nce(parts, symmetric=symmetric), wanted) < 1e-13


def test_private_candidates_of_one_anchor_do_not_touch_another():
    contrast = draw_contrast(Options(private=True, private_targets=True), seed=0)
    loss = info_nce(contrast)
    column = next(int(c) for c in contrast.own[0] if c >= 0 and c != contrast.targets[0])
    owners = {a for a in range(7) if column in contrast.own[a].tolist() or contrast.targets[a] == column}
    vectors = contrast.bank.parts[0].vectors if column < 7 else contrast.bank.parts[1].vectors
    row = column if column < 7 else column - 7
    with torch.no_grad():
        vectors[row] += 1.0
    changed = {int(a) for a in (info_nce(contrast) != loss).nonzero()}
    assert 0 in changed and changed <= owners


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_anchor_without_negatives_has_loss_0_and_finite_gradients(symmetric):
    contrast = in_batch(unit_rows(3, 4).float(), unit_rows(3, 4, seed=1).float(), ids=torch.zeros(3).long())
    contrast = converted(contrast, torch.float32)
    anchors, vectors = contrast.anchors.requires_grad_(), contrast.bank.parts[0].vectors.requires_grad_()
    loss = info_nce(contrast, symmetric=symmetric)
    assert torch.equal(loss, torch.zeros(3))
    for gradient in torch.autograd.grad(loss.sum(), [anchors, vectors]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_finite_at_any_temperature(temperature, compute_dtype):
    options = Options(symmetric=True, negatives=True, private=True, padding=True)
    contrast = draw_contrast(options, seed=1, dtype=torch.float32, scale=1 / temperature)
    loss = info_nce(contrast, symmetric=True, compute_dtype=compute_dtype)
    assert bool(loss.isfinite().all())
    assert bool((loss >= 0).all())
    for gradient in torch.autograd.grad(loss.mean(), leaves(contrast)):
        assert bool(gradient.isfinite().all())


def test_a_perfect_match_at_the_lowest_temperature_has_loss_0():
    rows = unit_rows(6, 16).float()
    assert float(info_nce(in_batch(rows, rows, scale=1e4), symmetric=True).max()) == 0.0


def test_the_mean_is_weighted_relative_to_the_mean_weight():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert float(weigh(losses, None).mean()) == 3.0
    assert float(weigh(losses, torch.tensor([5.0, 5.0, 5.0])).mean()) == pytest.approx(3.0)
    assert float(weigh(losses, torch.tensor([2.0, 0.0, 2.0])).mean()) == pytest.approx(3.5)
    assert float(weigh(losses, torch.zeros(3)).mean()) == 0.0

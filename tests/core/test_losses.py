import math
from dataclasses import replace

import pytest
import torch
from slow_loops import Options, difference, draw_contrast
from torch.nn.functional import cross_entropy, normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.losses import info_nce, weigh


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


def test_the_mean_is_weighted_relative_to_the_mean_weight():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert float(weigh(losses, None).mean()) == 3.0
    assert float(weigh(losses, torch.tensor([5.0, 5.0, 5.0])).mean()) == pytest.approx(3.0)
    assert float(weigh(losses, torch.tensor([2.0, 0.0, 2.0])).mean()) == pytest.approx(3.5)
    assert float(weigh(losses, torch.zeros(3)).mean()) == 0.0

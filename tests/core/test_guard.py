from dataclasses import replace

import pytest
import torch
from slow_loops import Options, draw_contrast, leaves, slow_negatives

from retrieval_cl.core.contrast import Bank, Contrast, Guide, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.reductions import Count, LogSum
from retrieval_cl.core.tiles import compare

RICH = Options(
    bias=True, negatives=True, private=True, duplicates=True, padding=True, repeats=True, guide=True
)
GUARDS = [Guard(fraction=0.8), Guard(margin=-0.1), Guard(fraction=0.9, by_guide=True)]


def scored(cosines, *, copies=1):
    """One anchor against columns of given cosines; the first is its target."""
    cosines = torch.tensor(cosines, dtype=torch.float64)
    columns = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)
    bank = Bank((Part(columns, torch.arange(len(columns))),))
    anchors = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    return Contrast(anchors, torch.tensor([[0]]), bank, torch.tensor([0]), anchors.new_tensor([4.0]))


def num_negatives(contrast, guard, **arguments):
    return compare(contrast, reductions=(Count(),), guard=guard, **arguments).negatives[0].tolist()


@pytest.mark.parametrize(
    ("guard", "kept"),
    [
        (Guard(fraction=0.9), [0.71, 0.3, -0.9]),
        (Guard(margin=-0.05), [0.74, 0.71, 0.3, -0.9]),
        (Guard(margin=0.05), [0.84, 0.74, 0.71, 0.3, -0.9]),
        (Guard(fraction=1.1), [0.87, 0.84, 0.74, 0.71, 0.3, -0.9]),
    ],
    ids=str,
)
def test_candidates_above_the_limit_are_ignored(guard, kept):
    others = [0.95, 0.87, 0.84, 0.74, 0.71, 0.3, -0.9]
    found = info_nce(scored([0.8, *others]), guard=guard)
    assert torch.allclose(found, info_nce(scored([0.8, *kept])), rtol=1e-13)


@pytest.mark.parametrize("guard", [Guard(fraction=0.9), Guard(margin=-0.05)], ids=str)
def test_a_limit_below_a_negative_score_lies_further_down(guard):
    # A limit of 0.9 * -0.5 would let -0.48 pass, which scores above the target.
    found = info_nce(scored([-0.5, -0.48, -0.54, -0.6]), guard=guard)
    assert torch.allclose(found, info_nce(scored([-0.5, -0.6])), rtol=1e-13)


def test_a_candidate_at_the_limit_passes():
    rows = torch.eye(3)[[0, 0, 1]]
    bank = Bank((Part(rows, torch.arange(3)),))
    contrast = Contrast(rows[:1], torch.tensor([[0]]), bank, torch.tensor([0]), torch.ones(1))
    assert num_negatives(contrast, Guard(fraction=1.0)) == [2.0]
    assert num_negatives(contrast, Guard(margin=0.0)) == [2.0]
    assert num_negatives(contrast, Guard(fraction=0.999)) == [1.0]


@pytest.mark.parametrize("guard", GUARDS, ids=str)
@pytest.mark.parametrize("size", [None, TileSize(2, 3)], ids=str)
def test_what_is_ignored_is_what_the_loop_ignores_in_shared_and_private_parts(guard, size):
    contrast = draw_contrast(RICH, seed=3)
    wanted = [float(sum(row)) for row in slow_negatives(contrast, guard)]
    without = [float(sum(row)) for row in slow_negatives(contrast)]
    assert num_negatives(contrast, guard, size=size) == wanted != without
    guarded, plain = slow_negatives(contrast, guard), slow_negatives(contrast)
    private = range(*[contrast.bank.starts[2], contrast.bank.starts[2] + len(contrast.bank.parts[2].ids)])
    assert any(p[c] and not g[c] for g, p in zip(guarded, plain, strict=True) for c in private)


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_scale_and_bias_do_not_move_the_limit(guard):
    contrast = draw_contrast(RICH, seed=3)
    other = replace(contrast, scale=contrast.scale.detach() * 31, bias=contrast.bias.detach() - 5)
    assert num_negatives(other, guard) == num_negatives(contrast, guard)


@pytest.mark.parametrize(
    "guard",
    [Guard(fraction=1e9), Guard(margin=10.0), Guard(margin=1e3, by_guide=True)],
    ids=str,
)
def test_a_limit_out_of_reach_changes_no_bit(guard):
    contrast = draw_contrast(RICH, seed=3)
    for keywords in ({"symmetric": True}, {"positives": "sum", "hardness": 0.5, "debias": 0.1}):
        plain, guarded = info_nce(contrast, **keywords), info_nce(contrast, guard=guard, **keywords)
        assert torch.equal(guarded, plain)
    assert torch.equal(sigmoid(contrast, guard=guard), sigmoid(contrast))


def test_a_limit_below_all_leaves_no_negative_and_spares_the_positives():
    contrast, guard = draw_contrast(RICH, seed=3), Guard(margin=-10.0)
    assert torch.equal(info_nce(contrast, guard=guard), torch.zeros(7, dtype=torch.float64))
    unguarded = compare(contrast, all_positives=True)
    guarded = compare(contrast, all_positives=True, guard=guard)
    assert torch.equal(guarded.positives, unguarded.positives)


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_an_ignored_candidate_gets_no_gradient_and_the_others_do(guard):
    contrast = draw_contrast(Options(negatives=True, private=True, guide=True), seed=3)
    kept = slow_negatives(contrast, guard)
    parts = [part.vectors for part in contrast.bank.parts]
    # One anchor at a time, in tiles that cut across it.
    for anchor, columns in enumerate(kept):
        negatives = compare(contrast, guard=guard, size=TileSize(2, 3)).negatives[0]
        if not any(columns):
            continue
        gradients = torch.autograd.grad(negatives[anchor], parts, allow_unused=True)
        touched = torch.cat([gradient.abs().sum(dim=1) > 0 for gradient in gradients])
        assert touched.tolist() == columns


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_an_ignored_candidate_is_not_in_its_columns_sum_either(guard):
    contrast = draw_contrast(Options(guide=True), seed=3)
    reverse = compare(contrast, reductions=(Count(),), symmetric=True, guard=guard).reverse[0]
    wanted = [float(sum(column)) for column in zip(*slow_negatives(contrast, guard), strict=True)]
    assert reverse.tolist() == wanted
    assert 0 < sum(wanted) < 7 * 6


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_a_guarded_loss_gives_the_same_bits_again(guard):
    contrast = draw_contrast(RICH, seed=3, dtype=torch.float32)
    runs = []
    for _ in range(2):
        loss = info_nce(contrast, symmetric=True, positives="sum", guard=guard)
        runs.append([loss, *torch.autograd.grad(loss.sum(), leaves(contrast))])
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


def test_the_guide_may_come_in_half_precision():
    contrast, guard = draw_contrast(RICH, seed=3, dtype=torch.float32), Guard(fraction=0.9, by_guide=True)
    half = Guide(contrast.guide.anchors.bfloat16(), tuple(x.bfloat16() for x in contrast.guide.bank))
    exact = Guide(half.anchors.float(), tuple(x.float() for x in half.bank))
    found, wanted = (info_nce(replace(contrast, guide=each), guard=guard) for each in (half, exact))
    assert torch.equal(found, wanted)


def test_the_guide_alone_decides_and_gets_no_gradient():
    contrast, guard = draw_contrast(RICH, seed=3), Guard(fraction=0.9, by_guide=True)
    guide = contrast.guide
    asking = Guide(guide.anchors.requires_grad_(), tuple(x.requires_grad_() for x in guide.bank))
    loss = info_nce(replace(contrast, guide=asking), guard=guard)
    assert torch.autograd.grad(loss.sum(), asking.anchors, allow_unused=True, retain_graph=True) == (None,)
    turned = replace(contrast, anchors=-contrast.anchors)
    assert num_negatives(turned, guard) == num_negatives(contrast, guard)


def test_a_guard_by_guide_needs_a_guide():
    contrast = draw_contrast(Options(), seed=0)
    with pytest.raises(AssertionError, match="needs a contrast with a guide"):
        info_nce(contrast, guard=Guard(margin=0.0, by_guide=True))


@pytest.mark.parametrize("arguments", [{}, {"fraction": 0.9, "margin": 0.1}], ids=str)
def test_a_guard_has_one_limit(arguments):
    with pytest.raises(AssertionError):
        Guard(**arguments)


def test_the_margin_is_in_the_unit_of_the_score():
    positives, unit = torch.tensor([3.0, -2.0]), torch.tensor([10.0])
    assert Guard(margin=0.1).limits(positives, unit).tolist() == [4.0, -1.0]
    assert Guard(fraction=0.75).limits(positives, unit).tolist() == [2.25, -2.5]


def test_two_sums_see_the_same_candidates():
    contrast, guard = draw_contrast(RICH, seed=3), Guard(fraction=0.8)
    log_sum, count = compare(contrast, reductions=(LogSum(), Count()), guard=guard).negatives
    assert torch.equal(log_sum == -torch.inf, count == 0)

from dataclasses import replace
from functools import partial

import pytest
import torch
from slow_loops import Options, draw_contrast, leaves
from torch.nn.functional import softplus

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid

RICH = Options(
    bias=True, negatives=True, private=True, duplicates=True, padding=True, repeats=True, guide=True
)
OBJECTIVES = {
    "plain": info_nce,
    "symmetric": partial(info_nce, symmetric=True),
    "mean": partial(info_nce, positives="mean", symmetric=True),
    "sum": partial(info_nce, positives="sum", symmetric=True),
    "decoupled": partial(info_nce, decoupled=True, symmetric=True),
    "hardness": partial(info_nce, hardness=2.0, symmetric=True),
    "debias": partial(info_nce, debias=0.1, symmetric=True),
    "fraction": partial(info_nce, guard=Guard(fraction=0.95), symmetric=True),
    "margin": partial(info_nce, guard=Guard(margin=0.05), symmetric=True),
    "guide": partial(info_nce, guard=Guard(fraction=0.9, by_guide=True), symmetric=True),
    "all": partial(info_nce, symmetric=True, positives="sum", decoupled=True, hardness=1.0, debias=0.3),
    "sigmoid": sigmoid,
    "sigmoid_sum": partial(sigmoid, positives="sum", guard=Guard(fraction=0.95)),
}


def lengthened(contrast, norm):
    """Anchors and vectors of another norm, with leaves of their own."""
    parts = [replace(p, vectors=(p.vectors.detach() * norm).requires_grad_()) for p in contrast.bank.parts]
    anchors = (contrast.anchors.detach() * norm).requires_grad_()
    return replace(contrast, anchors=anchors, bank=Bank(tuple(parts)))


def assert_finite(objective, contrast):
    loss = objective(contrast)
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite().all())
    for gradient in torch.autograd.grad(loss.mean(), leaves(contrast)):
        assert bool(gradient.isfinite().all())
    return loss


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_finite_at_any_temperature(name, temperature):
    contrast = draw_contrast(RICH, seed=1, dtype=torch.float32, scale=1 / temperature)
    loss = assert_finite(OBJECTIVES[name], contrast)
    assert name in ("decoupled", "all") or bool((loss >= 0).all())


@pytest.mark.parametrize("norm", [0.0, 1e-25, 1e5, 1e15])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_finite_at_any_norm(name, norm):
    contrast = draw_contrast(RICH, seed=1, dtype=torch.float32, scale=20.0)
    assert_finite(OBJECTIVES[name], lengthened(contrast, norm))


@pytest.mark.parametrize("temperature", [1e-4, 1e2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_finite_with_bf16_products(name, temperature):
    contrast = draw_contrast(RICH, seed=1, dtype=torch.float32, scale=1 / temperature)
    assert_finite(partial(OBJECTIVES[name], compute_dtype=torch.bfloat16), contrast)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_perfect_match_at_the_lowest_temperature_is_finite(name):
    rows = torch.eye(8)
    bank = Bank((Part(rows.clone().requires_grad_(), torch.arange(8)),))
    contrast = Contrast(
        rows.requires_grad_(),
        torch.arange(8)[:, None],
        bank,
        torch.arange(8),
        torch.tensor([1e4], requires_grad=True),
        bias=torch.tensor([-10.0], requires_grad=True),
        guide=draw_contrast(Options(guide=True), seed=0, num_anchors=8).guide,
    )
    loss = assert_finite(OBJECTIVES[name], contrast)
    if name not in ("decoupled", "all", "sigmoid", "sigmoid_sum"):
        assert torch.equal(loss, torch.zeros(8))


def without_negatives():
    """Every anchor knows every id but -1; some columns are private, some padding."""
    contrast = draw_contrast(RICH, seed=2, dtype=torch.float32)
    ids = torch.cat([part.ids for part in contrast.bank.parts]).unique()
    return replace(contrast, known=ids.expand(7, len(ids)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_negatives_the_loss_is_0_and_gradients_are(name):
    contrast = without_negatives()
    if name.startswith("sigmoid"):
        # What is left are the positives.
        objective = partial(OBJECTIVES[name], positives="target")
        vectors = torch.cat([part.vectors for part in contrast.bank.parts])[contrast.targets]
        logits = (contrast.anchors * vectors).sum(dim=1) * contrast.scale + contrast.bias
        assert torch.allclose(assert_finite(objective, contrast), softplus(-logits), rtol=1e-5)
        return
    loss = assert_finite(OBJECTIVES[name], contrast)
    assert torch.equal(loss, torch.zeros(7))
    for gradient in torch.autograd.grad(OBJECTIVES[name](contrast).sum(), leaves(contrast)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not name.startswith("sigmoid")])
def test_an_anchor_without_negatives_leaves_the_others_theirs(name):
    contrast = draw_contrast(RICH, seed=2, dtype=torch.float32)
    ids = torch.cat([part.ids for part in contrast.bank.parts]).unique()
    known = contrast.known.expand(7, len(ids)).clone()
    known[2] = ids
    objective = partial(OBJECTIVES[name], symmetric=False)
    plain = objective(contrast).detach()
    loss = assert_finite(objective, replace(contrast, known=known)).detach()
    assert float(loss[2]) == 0.0 != float(plain[2])
    others = torch.arange(7) != 2
    # Sums over a tile with other -inf may round another way.
    assert torch.allclose(loss[others], plain[others], rtol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_anchor_and_one_column(name):
    bank = Bank((Part(torch.ones(1, 3, requires_grad=True), torch.tensor([5])),))
    contrast = Contrast(
        torch.ones(1, 3, requires_grad=True),
        torch.tensor([[5]]),
        bank,
        torch.tensor([0]),
        torch.ones(1, requires_grad=True),
        guide=draw_contrast(Options(guide=True), seed=0, num_anchors=1).guide,
    )
    assert_finite(OBJECTIVES[name], contrast)

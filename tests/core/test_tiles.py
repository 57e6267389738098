import math
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, converted, difference, draw_contrast, leaves
from torch.utils._python_dispatch import TorchDispatchMode

from retrieval_cl.core import tile_engine
from retrieval_cl.core.contrast import Bank, Contrast, Guide, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.reductions import Count, Total
from retrieval_cl.core.tiles import compare

EVERYTHING = Options(**{field.name: True for field in fields(Options)})
GUARDS = [Guard(fraction=0.8), Guard(margin=0.1), Guard(fraction=0.9, by_guide=True)]
# Between them every reduction, in one direction and two.
OBJECTIVES = [
    info_nce,
    partial(info_nce, symmetric=True, positives="mean", decoupled=True, guard=GUARDS[0]),
    partial(info_nce, symmetric=True, positives="sum", hardness=0.7, debias=0.2, guard=GUARDS[1]),
    partial(info_nce, positives="mean", debias=0.05, guard=GUARDS[2]),
    partial(sigmoid, positives="sum", guard=GUARDS[1]),
]
EACH_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES, ids=range(len(OBJECTIVES)))


def values(contrast, *, symmetric=True, **arguments):
    compared = compare(contrast, symmetric=symmetric, **arguments)
    found = [compared.positives[compared.targets], compared.negatives[0]]
    return found if compared.reverse is None else [*found, compared.reverse[0, contrast.targets]]


def gradients(contrast, **arguments):
    # A sum of squares: each output gets an upstream gradient of its own.
    total = sum((value.where(value > -torch.inf, 0.0) ** 2).sum() for value in values(contrast, **arguments))
    return torch.autograd.grad(total, leaves(contrast))


def with_leaves(contrast, tensors):
    """The contrast with other values for what `leaves` gives of it."""
    given_leaves = iter(tensors)
    anchors, scale = next(given_leaves), next(given_leaves)
    parts = tuple(
        replace(part, vectors=next(given_leaves)) if part.vectors.requires_grad else part
        for part in contrast.bank.parts
    )
    bias = next(given_leaves, None)
    return replace(contrast, anchors=anchors, scale=scale, bank=Bank(parts), bias=bias)


@pytest.mark.parametrize("options", [Options(), EVERYTHING], ids=["plain", "everything"])
def test_gradients_pass_gradcheck(options):
    contrast = draw_contrast(options, seed=2, num_anchors=3, dim=2)

    def outputs(*tensors):
        found = values(with_leaves(contrast, tensors), symmetric=options.symmetric, size=TileSize(2, 2))
        return tuple(value.where(value > -torch.inf, 0.0) for value in found)

    assert torch.autograd.gradcheck(outputs, leaves(contrast))


@EACH_OBJECTIVE
def test_gradients_of_every_reduction_pass_gradcheck(objective, monkeypatch):
    monkeypatch.setattr(tile_engine, "CPU_TILE", TileSize(2, 5))
    contrast = draw_contrast(EVERYTHING, seed=2, num_anchors=3, dim=3)

    def outputs(*tensors):
        return objective(with_leaves(contrast, tensors))

    # In random directions, all at once.
    assert torch.autograd.gradcheck(outputs, leaves(contrast), fast_mode=True)


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 30),
    seed=st.integers(0, 100),
    objective=st.sampled_from(OBJECTIVES),
    flags=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_the_size_of_the_tiles_changes_nothing(rows, columns, seed, objective, flags):
    names = ["private", "private_targets", "duplicates", "frozen_part", "repeats", "padding"]
    varied = dict(zip(names, flags, strict=True))
    options = Options(negatives=True, several_known=True, bias=True, guide=True, **varied)
    contrast = draw_contrast(options, seed=seed)
    (loss, *found), (wanted_loss, *wanted) = (
        at_size(objective, contrast, size) for size in (TileSize(rows, columns), tile_engine.CPU_TILE)
    )
    assert torch.allclose(loss, wanted_loss, rtol=1e-12, atol=1e-12)
    for gradient, reference, leaf in zip(found, wanted, leaves(contrast), strict=True):
        # The bias cancels in InfoNCE.
        floor = 1.0 if leaf is contrast.bias else 0.0
        assert float((gradient - reference).abs().max()) <= 1e-12 * max(floor, float(reference.abs().max()))


def at_size(objective, contrast, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_engine, "CPU_TILE", size)
        loss = objective(contrast)
        return loss.detach(), *torch.autograd.grad((loss * loss).sum(), leaves(contrast))


def test_the_same_input_gives_the_same_bits():
    contrast = draw_contrast(EVERYTHING, seed=5, dtype=torch.float32)
    size = TileSize(3, 4)
    again = zip(gradients(contrast, size=size), gradients(contrast, size=size), strict=True)
    assert all(torch.equal(one, two) for one, two in again)


@pytest.fixture(params=[True, False], ids=["units", "no units"])
def has_units(request, monkeypatch):
    """A processor with units for half precision, and one without, whatever this one is."""
    found = dict.fromkeys(("avx512_bf16", "avx512_fp16"), request.param)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    return request.param


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_units_factors_alone_are_rounded(dtype, has_units):
    random = torch.Generator().manual_seed(0)
    anchors, vectors = (torch.randn(n, 64, generator=random).requires_grad_() for n in (5, 40))
    ids = torch.arange(40)
    contrast = Contrast(anchors, ids[:5, None], Bank((Part(vectors, ids),)), ids[:5], torch.full((1,), 0.1))
    factors = [(0.1 / math.log(2) * anchors).to(dtype).double(), vectors.to(dtype).double()]
    wanted, (found,) = (
        (factors[0] @ factors[1].T) * math.log(2),
        compare(contrast, compute_dtype=dtype).negatives,
    )
    wanted = wanted.masked_fill(torch.eye(5, 40, dtype=torch.bool), -torch.inf).logsumexp(dim=1)
    assert (difference(found, wanted) < 1e-6) != has_units
    gradients = torch.autograd.grad(found.sum(), (anchors, vectors))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.usefixtures("has_units")
def test_bf16_products_stay_near_float32_and_sum_in_float32():
    contrast = draw_contrast(EVERYTHING, seed=5, num_anchors=40, dim=32, dtype=torch.float32, scale=10.0)
    for found, wanted in zip(values(contrast, compute_dtype=torch.bfloat16), values(contrast), strict=True):
        assert found.dtype == torch.float32
        held = wanted > -torch.inf
        assert torch.allclose(found[held], wanted[held], atol=0.1)
    pairs = zip(gradients(contrast, compute_dtype=torch.bfloat16), gradients(contrast), strict=True)
    for found, wanted in pairs:
        assert found.dtype == torch.float32
        assert difference(found, wanted) < 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_summed_in_float32(dtype):
    half = draw_contrast(EVERYTHING, seed=5, num_anchors=40, dim=32, dtype=dtype)
    exact = converted(half, torch.float64)
    for found, wanted in zip(values(half), values(exact), strict=True):
        assert found.dtype == torch.float32
        held = wanted > -torch.inf
        assert difference(found[held], wanted[held]) < 1e-6
    for found, wanted in zip(gradients(half), gradients(exact), strict=True):
        assert found.dtype == dtype
        assert difference(found, wanted) < torch.finfo(dtype).eps


@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("autocast_dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_reach_the_products(compute_dtype, autocast_dtype):
    contrast = draw_contrast(EVERYTHING, seed=5, dtype=torch.float32)
    inputs, total = (
        leaves(contrast),
        sum(value.exp().sum() for value in values(contrast, compute_dtype=compute_dtype)),
    )
    wanted = torch.autograd.grad(total, inputs, retain_graph=True)
    with torch.autocast("cpu", dtype=autocast_dtype):
        again = sum(value.exp().sum() for value in values(contrast, compute_dtype=compute_dtype))
        found = torch.autograd.grad(total, inputs)
    assert torch.equal(again, total)
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))


def test_a_sum_over_nothing_is_a_constant():
    ids = torch.tensor([0, 0, 1])
    bank = Bank((Part(torch.eye(3), ids),))
    bias = torch.zeros(1, requires_grad=True)
    # Anchor 0 knows every id of the bank, anchor 1 does not.
    known = torch.tensor([[0, 1], [0, -1]])
    contrast = Contrast(torch.eye(3)[:2], known, bank, torch.tensor([0, 1]), torch.ones(1), bias=bias)
    negatives = compare(contrast).negatives[0]
    assert negatives.tolist() == [-torch.inf, 0.0]
    assert torch.autograd.grad(negatives.sum(), bias)[0].tolist() == [1.0]


def test_positives_have_a_gradient_where_all_sums_are_constants():
    contrast = draw_contrast(EVERYTHING, seed=0)
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    wanted = (contrast.anchors * vectors[contrast.targets]).sum() * contrast.scale
    compared = compare(contrast, reductions=(Count(), Total()), symmetric=True)
    found = torch.autograd.grad(
        compared.positives.sum() + compared.negatives.sum(), leaves(contrast), materialize_grads=True
    )
    references = torch.autograd.grad(wanted, leaves(contrast)[:-1])
    for gradient, reference in zip(found[:-1], references, strict=True):
        assert difference(gradient, reference) < 1e-13
    assert float(found[-1]) == len(contrast.targets)


class Watch(TorchDispatchMode):
    """Notes the largest tensor that any operation gives back, and counts matrix products."""

    def __init__(self):
        super().__init__()
        self.largest = self.products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        self.products += function.overloadpacket.__name__ in {"mm", "addmm", "addmm_"}
        return out


def large_contrast(*, num_anchors, num_columns, num_known, requires_grad=(True, True)):
    random = torch.Generator().manual_seed(0)
    anchors = torch.randn(num_anchors, 8, generator=random).requires_grad_(requires_grad[0])
    vectors = torch.randn(num_columns, 8, generator=random).requires_grad_(requires_grad[1])
    ids = torch.arange(num_columns)
    known = torch.randint(0, 10 * num_columns, (num_anchors, num_known), generator=random)
    known[:, 0] = ids[:num_anchors]
    scale = torch.ones(1, requires_grad=requires_grad[0])
    guide = Guide(anchors.detach()[:, :4], (vectors.detach()[:, :4],))
    return Contrast(anchors, known, Bank((Part(vectors, ids),)), ids[:num_anchors], scale, guide=guide)


@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_no_tensor_of_anchors_times_columns_is_ever_made(compute_dtype):
    contrast = large_contrast(num_anchors=512, num_columns=2048, num_known=3)
    with Watch() as watch:
        found = values(contrast, size=TileSize(128, 128), compute_dtype=compute_dtype)
        forward = watch.products
        torch.autograd.grad(sum(value.sum() for value in found), leaves(contrast))
    assert watch.products > forward > 0
    # The vectors, or a tile, are the largest thing there is.
    assert watch.largest <= 2048 * 8


@EACH_OBJECTIVE
def test_no_option_makes_a_tensor_of_anchors_times_columns(objective, monkeypatch):
    monkeypatch.setattr(tile_engine, "CPU_TILE", TileSize(128, 128))
    contrast = large_contrast(num_anchors=512, num_columns=2048, num_known=3)
    with Watch() as watch:
        torch.autograd.grad(objective(contrast).sum(), leaves(contrast))
    assert watch.products > 0
    assert watch.largest <= 2048 * 8


def test_many_known_ids_cost_their_own_number_and_no_more():
    contrast = large_contrast(num_anchors=64, num_columns=4096, num_known=1000)
    with Watch() as watch:
        values(contrast, size=TileSize(64, 64))
    # (anchor, place) of each id is the largest thing; the columns do not multiply it.
    assert watch.largest <= 2 * 64 * 1000


@pytest.mark.parametrize(
    ("anchors", "vectors", "per_tile"), [(True, True, 3), (True, False, 2), (False, True, 2)]
)
def test_what_needs_no_gradient_costs_no_gradient_product(anchors, vectors, per_tile):
    contrast = large_contrast(num_anchors=32, num_columns=64, num_known=1, requires_grad=(anchors, vectors))
    found = values(contrast, size=TileSize(16, 16))
    with Watch() as watch:
        torch.autograd.grad(sum(value.sum() for value in found), leaves(contrast))
    assert watch.products == per_tile * 8


@EACH_OBJECTIVE
@pytest.mark.parametrize(
    ("anchors", "vectors", "per_tile"), [(True, True, 3), (True, False, 2), (False, True, 2)]
)
def test_no_option_costs_a_gradient_product(objective, anchors, vectors, per_tile, monkeypatch):
    monkeypatch.setattr(tile_engine, "CPU_TILE", TileSize(16, 16))
    contrast = large_contrast(num_anchors=32, num_columns=64, num_known=1, requires_grad=(anchors, vectors))
    loss = objective(contrast)
    guided = getattr(objective, "keywords", {}).get("guard") is GUARDS[2]
    with Watch() as watch:
        torch.autograd.grad(loss.sum(), leaves(contrast))
    assert watch.products == (per_tile + guided) * 8


def test_a_frozen_part_is_skipped_where_only_the_other_needs_a_gradient():
    contrast = large_contrast(num_anchors=32, num_columns=64, num_known=1, requires_grad=(False, True))
    queue = Part(torch.randn(64, 8), torch.arange(100, 164))
    found = values(replace(contrast, bank=Bank((*contrast.bank.parts, queue))), size=TileSize(16, 16))
    with Watch() as watch:
        torch.autograd.grad(sum(value.sum() for value in found), leaves(contrast))
    assert watch.products == 2 * 8


def test_a_second_derivative_is_refused():
    contrast = draw_contrast(Options(), seed=0)
    total = compare(contrast).negatives.square().sum()
    gradient = torch.autograd.grad(total, contrast.anchors, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

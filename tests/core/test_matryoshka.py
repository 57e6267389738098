from copy import deepcopy
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, converted, difference, draw_contrast, leaves, slow_info_nce
from torch.nn.functional import normalize

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.contrast import Bank, Contrast, Guide, Part
from retrieval_cl.core.distillation import margin_mse
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.matryoshka import Matryoshka, matryoshka

PARTS = Options(negatives=True, private=True, padding=True, bias=True, frozen_part=True, several_known=True)


def cut(contrast, dim):
    """The contrast on the first coordinates, as unit rows; on all of them as it is."""
    if dim == contrast.anchors.shape[1]:
        return contrast
    parts = (replace(part, vectors=normalize(part.vectors[:, :dim], dim=1)) for part in contrast.bank.parts)
    return replace(contrast, anchors=normalize(contrast.anchors[:, :dim], dim=1), bank=Bank(tuple(parts)))


def slow_matryoshka(contrast, *, dims, weights=None, symmetric=False):
    weights = weights or [1.0] * len(dims)
    terms = zip(dims, weights, strict=True)
    total = sum(weight * slow_info_nce(cut(contrast, dim), symmetric=symmetric) for dim, weight in terms)
    return total / sum(weights)


def assert_equal_to_slow_loop(contrast, *, tolerance, symmetric=False, **arguments):
    objective = matryoshka(partial(info_nce, symmetric=symmetric), **arguments)
    found = objective(contrast)
    exact = converted(contrast, torch.float64)
    wanted = slow_matryoshka(exact, symmetric=symmetric, **arguments)
    assert difference(found, wanted) < tolerance
    # Unequal weights: a mean would let errors of single rows cancel.
    weights = torch.linspace(0.5, 2.0, len(found), dtype=torch.float64)
    gradients = torch.autograd.grad((found * weights.to(found.dtype)).sum(), leaves(contrast))
    references = torch.autograd.grad((wanted * weights).sum(), leaves(exact))
    for leaf, gradient, reference in zip(leaves(contrast), gradients, references, strict=True):
        if leaf is contrast.bias:
            assert float(gradient.abs().max()) < 1e-5
        elif float(reference.abs().max()) > 1e-10:
            assert difference(gradient, reference) < tolerance


@settings(deadline=None, max_examples=15)
@given(
    dims=st.lists(st.integers(2, 6), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 1000),
    symmetric=st.booleans(),
    weighted=st.booleans(),
)
def test_loss_and_gradients_equal_the_slow_loop(dims, seed, symmetric, weighted):
    weights = [0.5 + number for number in range(len(dims))] if weighted else None
    contrast = draw_contrast(PARTS, seed=seed, num_anchors=5, dim=6)
    assert_equal_to_slow_loop(contrast, tolerance=1e-11, symmetric=symmetric, dims=dims, weights=weights)


def test_float32_equals_the_float64_slow_loop():
    contrast = draw_contrast(PARTS, seed=1, dim=12, dtype=torch.float32)
    assert_equal_to_slow_loop(contrast, tolerance=1e-5, symmetric=True, dims=[3, 12], weights=[1.0, 2.0])


def test_it_is_the_mean_of_the_objective_on_the_unit_rows_of_each_prefix():
    contrast = draw_contrast(PARTS, seed=3, dim=8)
    found = matryoshka(info_nce, dims=[2, 5])(contrast)
    wanted = (info_nce(cut(contrast, 2)) + info_nce(cut(contrast, 5))) / 2
    assert difference(found, wanted) < 1e-14


@pytest.mark.parametrize("objective", [info_nce, partial(info_nce, symmetric=True), alignment])
def test_the_full_dim_alone_is_the_objective_itself(objective):
    contrast = draw_contrast(Options(negatives=True), seed=2, dim=6)
    with torch.no_grad():
        # Rows of other lengths: nothing is normalised again.
        contrast.anchors.mul_(3.0)
    assert torch.equal(matryoshka(objective, dims=[6])(contrast), objective(contrast))


def test_weights_are_relative():
    contrast = draw_contrast(PARTS, seed=4, dim=6)
    small = matryoshka(info_nce, dims=[2, 4, 6], weights=[0.5, 1.0, 1.5])
    large = matryoshka(info_nce, dims=[2, 4, 6], weights=[10.0, 20.0, 30.0])
    assert small.weights == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert difference(small(contrast), large(contrast)) < 1e-15
    assert matryoshka(info_nce, dims=[2, 4]).weights == (0.5, 0.5)


def test_order_of_dims_changes_nothing():
    contrast = draw_contrast(PARTS, seed=4, dim=6)
    up = matryoshka(info_nce, dims=[2, 4, 6], weights=[1.0, 2.0, 3.0])(contrast)
    mixed = matryoshka(info_nce, dims=[4, 6, 2], weights=[2.0, 3.0, 1.0])(contrast)
    assert difference(mixed, up) < 1e-15


def test_an_objective_of_identical_rows_keeps_its_value():
    # log(12) at every dim: the loss stays on the objective's scale.
    rows = normalize(torch.randn(1, 8, generator=torch.Generator().manual_seed(0)), dim=1).double()
    rows, ids = rows.expand(12, 8), torch.arange(12)
    contrast = Contrast(rows, ids[:, None], Bank((Part(rows, ids),)), ids, torch.tensor([20.0]).double())
    loss = matryoshka(info_nce, dims=[1, 2, 4, 8], weights=[4.0, 3.0, 2.0, 1.0])(contrast)
    assert torch.allclose(loss, torch.full_like(loss, 12.0).log(), rtol=1e-14)


class Recorder:
    """An objective that notes what it was called with."""

    def __init__(self):
        self.seen = []

    def __call__(self, contrast):
        self.seen.append(contrast)
        return contrast.anchors.sum(dim=1)


def full_contrast():
    contrast = draw_contrast(Options(private_targets=True, bias=True), seed=5, dim=6)
    guide = Guide(torch.ones(7, 9), (torch.ones(7, 9),))
    return replace(contrast, teacher=torch.ones(7, 6), weights=torch.ones(7), guide=guide)


def test_all_but_the_vectors_passes_through_untouched():
    contrast, recorder = full_contrast(), Recorder()
    matryoshka(recorder, dims=[2, 4])(contrast)
    for seen, dim in zip(recorder.seen, [2, 4], strict=True):
        for field in fields(Contrast):
            if field.name not in ("anchors", "bank"):
                assert getattr(seen, field.name) is getattr(contrast, field.name)
                assert getattr(seen, field.name) is not None
        assert seen.anchors.shape == (7, dim)
        for part, given_part in zip(seen.bank.parts, contrast.bank.parts, strict=True):
            assert part.vectors.shape == (len(part.ids), dim)
            assert part.ids is given_part.ids and part.shared == given_part.shared


def test_prefixes_have_length_1_and_the_dtype_they_came_in():
    contrast, recorder = converted(full_contrast(), torch.bfloat16), Recorder()
    matryoshka(recorder, dims=[2, 4])(contrast)
    for seen in recorder.seen:
        for rows in (seen.anchors, *(part.vectors for part in seen.bank.parts)):
            assert rows.dtype == torch.bfloat16
            lengths = rows.double().square().sum(dim=1).sqrt()
            assert torch.allclose(lengths, torch.ones(len(rows)).double(), atol=2**-8)


def test_a_part_without_gradient_keeps_costing_none():
    contrast, recorder = draw_contrast(Options(frozen_part=True), seed=5, dim=6), Recorder()
    matryoshka(recorder, dims=[3])(contrast)
    assert [part.vectors.requires_grad for part in recorder.seen[0].bank.parts] == [True, False]


def test_zero_prefixes_have_finite_losses_and_get_no_gradient_of_their_own():
    contrast = draw_contrast(Options(negatives=True), seed=6, dim=6, dtype=torch.float32)
    with torch.no_grad():
        contrast.anchors[0, :3] = 0.0
        contrast.bank.parts[0].vectors[2, :3] = 0.0
    loss = matryoshka(info_nce, dims=[3])(contrast)
    gradients = torch.autograd.grad(loss.sum(), leaves(contrast))
    assert bool(loss.isfinite().all())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not bool(gradients[0][0].any()) and not bool(gradients[2][2].any())
    assert bool(gradients[0][1].any())


def test_coordinates_beyond_the_longest_prefix_change_nothing():
    contrast = draw_contrast(Options(negatives=True), seed=6, dim=6)
    objective = matryoshka(info_nce, dims=[2, 4])
    wanted = objective(contrast)
    with torch.no_grad():
        contrast.anchors[:, 4:] = 100.0
    assert torch.equal(objective(contrast), wanted)


def test_distillation_can_be_cut_short_too():
    contrast = draw_contrast(Options(private=True), seed=7, dim=6)
    contrast.own[:, 0] = contrast.targets
    contrast = replace(contrast, teacher=torch.randn(7, 6, dtype=torch.float64))
    found = matryoshka(margin_mse, dims=[3, 6])(contrast)
    assert difference(found, (margin_mse(cut(contrast, 3)) + margin_mse(contrast)) / 2) < 1e-14


def test_a_copy_computes_the_same_and_shows_what_it_wraps():
    objective = matryoshka(partial(info_nce, symmetric=True), dims=[2, 6], weights=[1.0, 3.0])
    copy = deepcopy(objective)
    assert isinstance(copy, Matryoshka)
    assert (copy.dims, copy.weights) == ((2, 6), (0.25, 0.75))
    assert copy.objective.func is info_nce and copy.objective.keywords == {"symmetric": True}
    contrast = draw_contrast(PARTS, seed=4, dim=6)
    assert torch.equal(copy(contrast), objective(contrast))


@pytest.mark.parametrize("dims", [[], [0, 4], [-1], [4, 4]])
def test_dims_that_are_not_valid_are_named(dims):
    with pytest.raises(InputError, match=r"method\.matryoshka\.dims is \[.*positive"):
        matryoshka(info_nce, dims=dims)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], []])
def test_weights_that_are_not_valid_are_named(weights):
    with pytest.raises(InputError, match=r"method\.matryoshka\.weights is \[.*2 positive"):
        matryoshka(info_nce, dims=[2, 4], weights=weights)


def test_a_dim_above_the_vectors_is_named():
    objective = matryoshka(info_nce, dims=[4, 512])
    with pytest.raises(InputError, match=r"method\.matryoshka\.dims has 512, but the vectors have 6"):
        objective(draw_contrast(Options(), seed=0, dim=6))

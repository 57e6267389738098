from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, converted, difference, draw_contrast
from torch.nn.functional import cosine_similarity

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.contrast import Bank, Contrast, Part

PARTS = Options(negatives=True, private=True, padding=True, bias=True)


def slow_alignment(contrast):
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    losses = []
    for anchor, column in enumerate(contrast.targets.tolist()):
        a, z = contrast.anchors[anchor], vectors[column]
        losses.append(2 - 2 * (a * z).sum() / (a.square().sum().sqrt() * z.square().sum().sqrt()))
    return torch.stack(losses)


def draw(options=PARTS, *, seed=0, **arguments):
    """A drawn contrast with rows of any length, and targets in all of its parts, some of them twice."""
    contrast = draw_contrast(options, seed=seed, **arguments)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for rows in (contrast.anchors, *(part.vectors for part in contrast.bank.parts)):
            rows *= torch.rand(len(rows), 1, generator=random).to(rows.dtype) + 0.5
    targets = torch.randint(0, contrast.bank.num_columns, (len(contrast.anchors),), generator=random)
    return replace(contrast, targets=targets)


def loss_and_gradients(objective, contrast):
    per_anchor = objective(contrast)
    weights = torch.linspace(0.5, 2.0, len(per_anchor), dtype=per_anchor.dtype)
    found = torch.autograd.grad((per_anchor * weights).sum(), vector_leaves(contrast), allow_unused=True)
    return per_anchor, found


def vector_leaves(contrast):
    return [contrast.anchors, *(p.vectors for p in contrast.bank.parts if p.vectors.requires_grad)]


def assert_equal_to_slow_loop(contrast, *, tolerance):
    found, gradients = loss_and_gradients(alignment, contrast)
    wanted, references = loss_and_gradients(slow_alignment, converted(contrast, torch.float64))
    assert difference(found, wanted) < tolerance
    for gradient, reference in zip(gradients, references, strict=True):
        assert gradient is not None and reference is not None
        assert difference(gradient, reference) < tolerance


@settings(deadline=None, max_examples=25)
@given(
    frozen_part=st.booleans(),
    private_targets=st.booleans(),
    seed=st.integers(0, 10_000),
    num_anchors=st.integers(1, 9),
    dim=st.integers(2, 6),
)
def test_any_shape_equals_the_slow_loop(frozen_part, private_targets, seed, num_anchors, dim):
    options = replace(PARTS, frozen_part=frozen_part, private_targets=private_targets)
    assert_equal_to_slow_loop(draw(options, seed=seed, num_anchors=num_anchors, dim=dim), tolerance=1e-12)


def test_float32_equals_the_float64_slow_loop():
    assert_equal_to_slow_loop(draw(dtype=torch.float32, num_anchors=50, dim=24), tolerance=1e-5)


def pair(anchors, targets):
    number = len(anchors)
    bank = Bank((Part(targets, torch.full((number,), -1)),))
    known = torch.full((number, 1), -1)
    return Contrast(anchors, known, bank, torch.arange(number), torch.ones(1, dtype=anchors.dtype))


def test_gradients_pass_gradcheck():
    contrast = draw(num_anchors=4, dim=3)
    bank = contrast.bank

    def loss(anchors, *vectors):
        parts = (replace(part, vectors=new) for part, new in zip(bank.parts, vectors, strict=True))
        return alignment(replace(contrast, anchors=anchors, bank=Bank(tuple(parts))))

    assert torch.autograd.gradcheck(loss, [contrast.anchors, *(part.vectors for part in bank.parts)])


def test_equal_directions_give_0_opposite_ones_4_and_right_angles_2():
    x, y = torch.eye(3)[0], torch.eye(3)[1]
    loss = alignment(pair(torch.stack([x, x, x]), torch.stack([7 * x, -0.1 * x, y])))
    assert torch.allclose(loss, torch.tensor([0.0, 4.0, 2.0]))


def test_the_loss_of_near_rows_keeps_its_digits_and_its_sign():
    random = torch.Generator().manual_seed(1)
    anchors = torch.randn(200, 64, generator=random)
    targets = anchors + 1e-4 * torch.randn(200, 64, generator=random)
    loss = alignment(pair(anchors, targets))
    wanted = 2 - 2 * cosine_similarity(anchors.double(), targets.double())
    assert bool((loss >= 0).all())
    assert float(((loss - wanted) / wanted).abs().max()) < 1e-2


def test_ids_scale_bias_and_other_columns_play_no_part():
    contrast = draw()
    stranger = Part(torch.full((2, 5), torch.nan, dtype=torch.float64), torch.tensor([3, 3]))
    nobodys = tuple(replace(part, ids=torch.full_like(part.ids, -1)) for part in contrast.bank.parts)
    other = replace(
        contrast, bank=Bank((*nobodys, stranger)), scale=contrast.scale * 100, bias=None, own=None
    )
    found, gradients = loss_and_gradients(alignment, other)
    wanted, references = loss_and_gradients(alignment, contrast)
    assert torch.equal(found, wanted)
    assert all(torch.equal(*both) for both in zip(gradients, references, strict=True))


@pytest.mark.parametrize("zero", ["anchor", "target", "both"])
def test_a_zero_row_has_loss_2_and_no_gradient(zero):
    random = torch.Generator().manual_seed(1)
    anchors, targets = torch.randn(3, 4, generator=random), torch.randn(3, 4, generator=random)
    anchors[1] *= zero == "target"
    targets[1] *= zero == "anchor"
    contrast = pair(anchors.requires_grad_(), targets.requires_grad_())
    loss = alignment(contrast)
    assert float(loss[1].detach()) == 2.0
    for gradient in torch.autograd.grad(loss.sum(), [anchors, targets]):
        assert torch.equal(gradient[1], torch.zeros(4))
        assert bool((gradient[[0, 2]].abs().sum(dim=1) > 0.1).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_float32(dtype):
    random = torch.Generator().manual_seed(1)
    anchors = torch.randn(3000, 8, generator=random).to(dtype).requires_grad_()
    target = torch.randn(1, 8, generator=random).to(dtype).requires_grad_()
    contrast = replace(pair(anchors, target.expand(3000, 8)), targets=torch.zeros(3000).long())
    contrast = replace(contrast, bank=Bank((Part(target, torch.zeros(1).long()),)))
    loss = alignment(contrast)
    exact = converted(contrast, torch.float64)
    reference = torch.autograd.grad(slow_alignment(exact).sum(), exact.bank.parts[0].vectors)[0]
    gradient = torch.autograd.grad(loss.sum(), target)[0]
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    assert difference(loss, slow_alignment(exact)) < 1e-5
    # One rounding, of the sum; a sum of 3000 terms in bfloat16 would be off by tens of percent.
    assert difference(gradient, reference) < 2**-8


def test_empty_parts_change_nothing():
    contrast = draw()
    empty = Part(torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0).long())
    more = replace(contrast, bank=Bank((empty, *contrast.bank.parts, empty)))
    assert torch.equal(alignment(more), alignment(contrast))


def test_nothing_waits_for_the_device():
    # On the meta device there are no values: whatever asks for one raises.
    contrast = draw()
    parts = tuple(
        Part(part.vectors.detach().to("meta").requires_grad_(), part.ids.to("meta"), shared=part.shared)
        for part in contrast.bank.parts
    )
    anchors = contrast.anchors.detach().to("meta").requires_grad_()
    targets = contrast.targets.to("meta")
    meta = replace(contrast, anchors=anchors, bank=Bank(parts), targets=targets)
    alignment(meta).sum().backward()
    assert all(rows.grad.is_meta for rows in vector_leaves(meta))

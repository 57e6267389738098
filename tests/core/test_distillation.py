import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_distillation import BOTH, PARTS, SLOW, assert_equal_to_slow_loop, draw, loss_and_gradients
from slow_loops import difference, leaves

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.distillation import kl_divergence, margin_mse
from retrieval_cl.core.errors import InputError


@pytest.mark.parametrize("objective", BOTH)
@settings(deadline=None, max_examples=25)
@given(
    flags=st.lists(st.booleans(), min_size=4, max_size=4),
    seed=st.integers(0, 10_000),
    num_anchors=st.integers(1, 7),
    dim=st.integers(1, 5),
    width=st.integers(1, 6),
    scale=st.sampled_from([0.1, 3.0, 20.0]),
)
def test_any_group_equals_the_slow_loop(objective, flags, seed, num_anchors, dim, width, scale):
    padding, frozen_part, private_targets, bias = flags
    options = replace(
        PARTS, padding=padding, frozen_part=frozen_part, private_targets=private_targets, bias=bias
    )
    contrast = draw(options, seed=seed, num_anchors=num_anchors, dim=dim, width=width, scale=scale)
    found, wanted = objective(contrast).detach(), SLOW[objective](contrast).detach()
    assert float((found - wanted).abs().max()) < 1e-12 * max(1.0, scale) ** 2


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients_equal_the_slow_loop_in_float64(objective, seed):
    assert_equal_to_slow_loop(objective, draw(seed=seed), tolerance=1e-12)


@pytest.mark.parametrize("objective", BOTH)
def test_float32_equals_the_float64_slow_loop(objective):
    contrast = draw(dtype=torch.float32, num_anchors=30, dim=24, scale=10.0)
    assert_equal_to_slow_loop(objective, contrast, tolerance=1e-5)


@pytest.mark.parametrize("objective", BOTH)
def test_gradients_pass_gradcheck(objective):
    contrast = draw(num_anchors=4, dim=3, scale=2.0)
    bank = contrast.bank

    def loss(anchors, scale, bias, *vectors):
        parts = (replace(part, vectors=new) for part, new in zip(bank.parts, vectors, strict=True))
        changed = replace(contrast, anchors=anchors, scale=scale, bias=bias, bank=Bank(tuple(parts)))
        return objective(changed)

    inputs = [contrast.anchors, contrast.scale, contrast.bias, *(part.vectors for part in bank.parts)]
    assert torch.autograd.gradcheck(loss, inputs)


def one_group(vectors, teacher, *, scale=1.0, ids=None, own=None, target=0, anchor=None):
    """One anchor, the first unit vector unless given, with one part of candidates and a teacher's scores."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64).requires_grad_()
    anchor = torch.eye(vectors.shape[1]).double()[:1] if anchor is None else anchor
    ids = torch.arange(len(vectors)) if ids is None else torch.tensor(ids)
    return Contrast(
        anchors=anchor.requires_grad_(),
        known=torch.tensor([[7]]),
        bank=Bank((Part(vectors, ids, shared=False),)),
        targets=torch.tensor([target]),
        scale=torch.tensor([scale]).double().requires_grad_(),
        own=(torch.arange(len(vectors)) if own is None else torch.tensor(own))[None],
        teacher=torch.tensor([teacher]).double(),
    )


def test_margin_mse_is_the_mean_square_of_what_the_margins_are_off():
    # Student's margins 2 and 6 with sign, teacher's 1 and 2: errors 1 and 4.
    contrast = one_group([[1.0], [0.0], [-2.0]], [5.0, 4.0, 3.0], scale=2.0)
    assert margin_mse(contrast).tolist() == [(1 + 16) / 2]


def test_a_margin_of_the_wrong_sign_costs_more_than_none():
    wrong, none, right = (one_group([[x], [0.0]], [1.0, 0.0]) for x in (-1.0, 0.0, 1.0))
    assert [float(margin_mse(c).detach()) for c in (wrong, none, right)] == [4.0, 1.0, 0.0]
    assert float(kl_divergence(wrong).detach()) > float(kl_divergence(none).detach()) > 0.0


def test_two_candidates_give_the_binary_divergence():
    t, s = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-0.5))
    wanted = t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))
    loss = kl_divergence(one_group([[0.5], [0.0]], [1.5, 0.0]))
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("objective", BOTH)
def test_a_student_whose_logits_are_the_teachers_scores_and_a_constant_has_loss_0(objective):
    contrast = draw(scale=10.0)
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    dots = torch.einsum("ad,akd->ak", contrast.anchors, vectors[contrast.own.clamp_min(0)])
    perfect = replace(contrast, teacher=(10.0 * dots + 4.0).detach())
    loss, gradients = loss_and_gradients(objective, perfect)
    assert float(loss.detach().abs().max()) < 1e-13
    assert all(float(gradient.abs().max()) < 1e-12 for gradient in gradients)
    # The scale takes part: the cosines alone are no match.
    halved = replace(perfect, scale=contrast.scale / 2)
    assert float(objective(halved).detach().max()) > 0.1


def test_the_divergence_is_never_below_0_but_for_rounding():
    for seed in range(5):
        assert float(kl_divergence(draw(seed=seed, num_anchors=20)).detach().min()) > -1e-14


def test_the_teachers_temperature_divides_its_scores_alone():
    contrast = draw()
    halved = kl_divergence(replace(contrast, teacher=contrast.teacher / 2))
    assert torch.equal(kl_divergence(contrast, teacher_temperature=2.0), halved)
    assert_equal_to_slow_loop(kl_divergence, contrast, tolerance=1e-12, teacher_temperature=3.0)
    assert not torch.allclose(kl_divergence(contrast), halved)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_by_a_logit_is_the_students_share_minus_the_teachers(temperature):
    anchor = torch.tensor([[0.2, -0.4, 0.9]]).double()
    contrast = one_group(torch.eye(3), [2.0, 0.0, -1.0], anchor=anchor)
    (gradient,) = torch.autograd.grad(
        kl_divergence(contrast, teacher_temperature=temperature).sum(), contrast.anchors
    )
    wanted = contrast.anchors.softmax(dim=1) - (contrast.teacher / temperature).softmax(dim=1)
    assert torch.allclose(gradient, wanted, rtol=1e-12)


@pytest.mark.parametrize("objective", BOTH)
def test_one_candidate_has_loss_0_and_no_gradient(objective):
    contrast = replace(one_group([[1.0], [0.0]], [5.0, 1.0], own=[0, -1]), known=torch.tensor([[0]]))
    loss, gradients = loss_and_gradients(objective, contrast)
    assert loss.tolist() == [0.0]
    assert all(not bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("objective", BOTH)
def test_a_group_of_padding_alone_has_loss_0_and_no_gradient(objective):
    loss, gradients = loss_and_gradients(objective, one_group([[1.0], [0.0]], [5.0, 1.0], own=[-1, -1]))
    assert loss.tolist() == [0.0]
    assert all(not bool(gradient.any()) for gradient in gradients)


def test_without_the_target_there_is_no_margin_but_a_divergence():
    contrast = one_group([[1.0], [0.0], [0.5]], [5.0, 1.0], own=[1, 2])
    assert margin_mse(contrast).tolist() == [0.0]
    assert float(kl_divergence(contrast).detach()) > 0.1


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e300])
def test_padding_and_nobodys_candidates_may_hold_anything(objective, garbage):
    vectors, teacher = [[1.0, 0.2], [0.3, 0.1], [-0.2, 0.7]], [1.0, 3.0, 2.0]
    plain = one_group(vectors, teacher)
    padded = one_group(
        [[garbage, garbage], *vectors, [garbage, garbage]],
        [garbage, 1.0, garbage, 3.0, garbage, 2.0],
        own=[0, 1, -1, 2, 4, 3],
        ids=[-1, 0, 1, 2, -1],
        target=1,
    )
    found, gradients = loss_and_gradients(objective, padded)
    wanted, references = loss_and_gradients(objective, plain)
    assert torch.allclose(found, wanted, rtol=1e-14)
    # Anchors and scale, then the vectors between the two rows of garbage, which get nothing.
    assert torch.allclose(gradients[0], references[0], rtol=1e-13)
    assert torch.allclose(gradients[1], references[1], rtol=1e-13)
    assert torch.allclose(gradients[2][1:4], references[2], rtol=1e-13)
    assert not bool(gradients[2][[0, 4]].any())


@pytest.mark.parametrize("objective", BOTH)
def test_a_further_known_match_stays_among_the_candidates(objective):
    strangers = one_group([[1.0], [0.3], [0.1]], [1.0, 3.0, 2.0])
    matches = replace(strangers, known=torch.tensor([[0, 1]]))
    assert torch.equal(objective(matches), objective(strangers))


@pytest.mark.parametrize("objective", BOTH)
def test_the_target_counts_whatever_its_id(objective):
    plain = one_group([[1.0], [0.3], [0.1]], [1.0, 3.0, 2.0])
    nobodys = one_group([[1.0], [0.3], [0.1]], [1.0, 3.0, 2.0], ids=[-1, 1, 2])
    assert torch.equal(objective(nobodys), objective(plain))


def test_a_column_named_twice_counts_twice():
    once = one_group([[1.0], [0.3], [0.1]], [1.0, 3.0, 2.0])
    twice = one_group([[1.0], [0.3], [0.1]], [1.0, 3.0, 2.0, 2.0], own=[0, 1, 2, 2])
    a, b = ((0.7 + 2) ** 2, (0.9 + 1) ** 2)
    assert float(margin_mse(once).detach()) == pytest.approx((a + b) / 2)
    assert float(margin_mse(twice).detach()) == pytest.approx((a + 2 * b) / 3)


def test_a_teacher_that_rules_a_candidate_out_gives_it_no_share():
    contrast = one_group([[1.0], [0.3], [0.1]], [1.0, -torch.inf, 2.0])
    loss, gradients = loss_and_gradients(kl_divergence, contrast)
    shares = torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64).softmax(dim=0)
    teacher = torch.tensor([1.0, 2.0]).double().softmax(dim=0)
    wanted = (teacher * (teacher / shares[[0, 2]]).log()).sum()
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-12)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("objective", BOTH)
def test_where_a_candidate_lies_changes_nothing(objective):
    contrast = draw(PARTS)
    merged = torch.cat([part.vectors for part in contrast.bank.parts])
    ids = torch.cat([part.ids for part in contrast.bank.parts])
    empty = Part(merged[:0], ids[:0])
    one = replace(contrast, bank=Bank((empty, Part(merged, ids), empty)))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    turned = replace(contrast, own=contrast.own[:, order], teacher=contrast.teacher[:, order])
    wanted = objective(contrast)
    assert difference(objective(one), wanted) < 1e-13
    # A target that is named twice is scored by its first place: give both the same score.
    is_target = contrast.own == contrast.targets[:, None]
    even = contrast.teacher.where(~is_target, 1.0)
    wanted = objective(replace(contrast, teacher=even))
    assert difference(objective(replace(turned, teacher=even[:, order])), wanted) < 1e-13


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("scale", [1e-2, 1e2, 1e4])
def test_finite_at_any_scale(objective, scale):
    contrast = draw(dtype=torch.float32, scale=scale)
    loss, gradients = loss_and_gradients(objective, contrast)
    assert bool(loss.isfinite().all())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("objective", BOTH)
def test_the_teacher_and_a_part_without_gradient_get_none(objective):
    contrast = draw(replace(PARTS, frozen_part=True))
    teacher = contrast.teacher.requires_grad_()
    objective(replace(contrast, teacher=teacher)).sum().backward()
    assert teacher.grad is None and contrast.bank.parts[1].vectors.grad is None
    assert all(leaf.grad is not None for leaf in leaves(contrast))


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("missing", ["own", "teacher"])
def test_without_a_teacher_it_says_what_to_set(objective, missing):
    with pytest.raises(InputError, match=r"teacher's scores.*`own` and `teacher`"):
        objective(replace(draw(), **{missing: None}))

"""Slow references of distillation: one candidate at a time, and random groups to try them on."""

import math
from dataclasses import replace

import torch
from slow_loops import Options, converted, difference, draw_contrast, leaves

from retrieval_cl.core.distillation import kl_divergence, margin_mse

BOTH = [margin_mse, kl_divergence]
PARTS = Options(negatives=True, private=True, padding=True, bias=True, duplicates=True)


def draw(options=PARTS, *, seed=0, width=6, **arguments):
    """A drawn contrast whose groups lie in all parts; most hold their target, some twice or not at all."""
    contrast = draw_contrast(options, seed=seed, **arguments)
    random = torch.Generator().manual_seed(seed)
    shape = (len(contrast.anchors), width)
    own = torch.randint(-1, contrast.bank.num_columns, shape, generator=random)
    places = torch.randint(0, width, (len(own),), generator=random)
    rows = (torch.rand(len(own), generator=random) < 0.8).nonzero()[:, 0]
    own[rows, places[rows]] = contrast.targets[rows]
    teacher = 3 * torch.randn(shape, generator=random, dtype=torch.float64)
    return replace(contrast, own=own, teacher=teacher.to(contrast.anchors.dtype))


def _candidates_of(contrast, anchor):
    """(column, teacher's score) of an anchor's candidates."""
    ids = torch.cat([part.ids for part in contrast.bank.parts]).tolist()
    target = int(contrast.targets[anchor])
    named = zip(contrast.own[anchor].tolist(), contrast.teacher[anchor].tolist(), strict=True)
    return [(c, score) for c, score in named if c == target or (c != -1 and ids[c] != -1)]


def _logit(contrast, anchor, column):
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    value = (contrast.anchors[anchor] * vectors[column]).sum() * contrast.scale[0]
    return value if contrast.bias is None else value + contrast.bias[0]


def _nothing(contrast):
    return sum(leaf.sum() for leaf in leaves(contrast)) * 0.0


def slow_margin_mse(contrast):
    losses = []
    for anchor, target in enumerate(contrast.targets.tolist()):
        group = _candidates_of(contrast, anchor)
        scores = [score for column, score in group if column == target]
        errors = [
            (_logit(contrast, anchor, target) - _logit(contrast, anchor, column) - (scores[0] - score)) ** 2
            for column, score in group
            if column != target and scores
        ]
        losses.append(_nothing(contrast) + sum(errors) / max(len(errors), 1))
    return torch.stack(losses)


def slow_kl_divergence(contrast, *, teacher_temperature=1.0):
    losses = []
    for anchor in range(len(contrast.anchors)):
        group = _candidates_of(contrast, anchor)
        student = [_logit(contrast, anchor, column).exp() for column, _ in group]
        teacher = [math.exp(score / teacher_temperature) for _, score in group]
        terms = [
            t / sum(teacher) * ((t / sum(teacher)) / (s / sum(student))).log()
            for s, t in zip(student, teacher, strict=True)
        ]
        losses.append(_nothing(contrast) + sum(terms))
    return torch.stack(losses)


SLOW = {margin_mse: slow_margin_mse, kl_divergence: slow_kl_divergence}


def loss_and_gradients(objective, contrast, **arguments):
    per_anchor = objective(contrast, **arguments)
    weights = torch.linspace(0.5, 2.0, len(per_anchor), dtype=per_anchor.dtype)
    return per_anchor, torch.autograd.grad((per_anchor * weights).sum(), leaves(contrast))


def assert_equal_to_slow_loop(objective, contrast, *, tolerance, **arguments):
    found, gradients = loss_and_gradients(objective, contrast, **arguments)
    exact = converted(contrast, torch.float64)
    exact = replace(exact, teacher=contrast.teacher.double())
    wanted, references = loss_and_gradients(SLOW[objective], exact, **arguments)
    assert difference(found, wanted) < tolerance
    for leaf, gradient, reference in zip(leaves(contrast), gradients, references, strict=True):
        if leaf is contrast.bias:
            # It cancels: what is left of it is the rounding of terms like the anchors' gradients.
            assert float(gradient.abs().max()) < tolerance * max(1.0, float(gradients[0].abs().max()))
        else:
            assert difference(gradient, reference) < tolerance

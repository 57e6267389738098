import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, converted, difference, draw_contrast, leaves, slow_info_nce, slow_sigmoid

from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid, weigh

# What a contrast has, and what an objective is told; "mean" and "sum" differ from "target" where ids repeat.
RELATIONS = {
    name: {name: True}
    for name in (
        "bias",
        "negatives",
        "private",
        "private_targets",
        "duplicates",
        "padding",
        "frozen_part",
        "several_known",
        "repeats",
        "weights",
    )
}
# Without private targets and further known ids: columns too then have several positives and negatives.
RICH = RELATIONS.keys() - {"private_targets", "several_known"}
SETTINGS = {
    "symmetric": {"symmetric": True},
    "mean": {"positives": "mean"},
    "sum": {"positives": "sum"},
    "decoupled": {"decoupled": True},
    "hardness": {"hardness": 0.7},
    "debias": {"debias": 0.3},
    "fraction": {"guard": Guard(fraction=0.8)},
    "margin": {"guard": Guard(margin=0.1)},
    "guide": {"guard": Guard(fraction=0.9, by_guide=True)},
}
OF_SIGMOID = ("sum", "fraction", "margin", "guide")
# Values of one argument.
EXCLUSIVE = ({"mean", "sum"}, {"fraction", "margin"}, {"fraction", "guide"}, {"margin", "guide"})


def cases(names):
    pairs = [pair for pair in itertools.combinations(names, 2) if set(pair) not in EXCLUSIVE]
    return [(), *((name,) for name in names), *pairs]


def both_ways(names):
    """Pairs of settings that the reverse direction knows too."""
    return [("symmetric", *case) for case in cases(names) if len(case) == 2 and "symmetric" not in case]


def drawn(names, **arguments):
    """The contrast of a case and the keywords of its objective. Settings alone meet a rich contrast."""
    keywords = {key: value for name in names for key, value in SETTINGS.get(name, {}).items()}
    relations = [name for name in names if name in RELATIONS]
    if len(names) > 1 and not relations:
        relations = list(RICH)
    if {"mean", "sum"} & set(names):
        relations.append("repeats")
    options = Options(**dict.fromkeys(relations, True), guide="guide" in names)
    return draw_contrast(options, **arguments), keywords


def gradients(losses, contrast):
    # Unequal weights: a mean would let errors of single rows cancel.
    weights = torch.linspace(0.5, 2.0, len(losses), dtype=losses.dtype)
    found = torch.autograd.grad((losses * weights).sum(), leaves(contrast), allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for gradient, leaf in zip(found, leaves(contrast), strict=True)
    ]


def assert_equal_to_slow_loop(contrast, objective, loop, *, tolerance):
    found = weigh(objective(contrast), contrast.weights)
    exact = converted(contrast, torch.float64)
    wanted = loop(exact)
    if contrast.weights is not None:
        wanted = wanted * exact.weights / exact.weights.mean()
    assert found.dtype == contrast.anchors.dtype
    assert difference(found, wanted) < tolerance
    pairs = zip(gradients(found, contrast), gradients(wanted, exact), leaves(contrast), strict=True)
    for gradient, reference, leaf in pairs:
        # The bias cancels in InfoNCE: both gradients are rounding around 0.
        if leaf is contrast.bias and objective.func is info_nce:
            assert float(reference.abs().max()) < 1e-13
            assert float(gradient.abs().max()) < 10 * tolerance
        else:
            assert difference(gradient, reference) < tolerance


@pytest.mark.parametrize("names", [*cases([*RELATIONS, *SETTINGS]), *both_ways(SETTINGS)], ids="+".join)
def test_every_pair_of_options_of_info_nce_equals_the_slow_loop(names):
    contrast, keywords = drawn(names, seed=1 + len(names))
    loop = partial(slow_info_nce, **keywords)
    assert_equal_to_slow_loop(contrast, partial(info_nce, **keywords), loop, tolerance=1e-12)


@pytest.mark.parametrize("names", cases([*RELATIONS, *OF_SIGMOID]), ids="+".join)
def test_every_pair_of_options_of_sigmoid_equals_the_slow_loop(names):
    contrast, keywords = drawn(names, seed=1 + len(names))
    loop = partial(slow_sigmoid, **keywords)
    assert_equal_to_slow_loop(contrast, partial(sigmoid, **keywords), loop, tolerance=1e-12)


@pytest.mark.parametrize("names", [(), *((name,) for name in SETTINGS), tuple(RELATIONS)], ids="+".join)
def test_float32_equals_the_float64_slow_loop(names):
    contrast, keywords = drawn([*RELATIONS, *names], seed=4, dtype=torch.float32, scale=5.0)
    loop = partial(slow_info_nce, **keywords)
    assert_equal_to_slow_loop(contrast, partial(info_nce, **keywords), loop, tolerance=1e-5)


@pytest.mark.parametrize("names", [(), *((name,) for name in OF_SIGMOID)], ids="+".join)
def test_float32_sigmoid_equals_the_float64_slow_loop(names):
    contrast, keywords = drawn([*RELATIONS, *names], seed=4, dtype=torch.float32, scale=5.0)
    loop = partial(slow_sigmoid, **keywords)
    assert_equal_to_slow_loop(contrast, partial(sigmoid, **keywords), loop, tolerance=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_option_is_without_effect(name):
    contrast, keywords = drawn([*RELATIONS, name], seed=1)
    changed = info_nce(contrast, **keywords) != info_nce(contrast)
    assert bool(changed.all() if name not in ("fraction", "margin", "guide") else changed.any())


GUARDS = [None, *(SETTINGS[name]["guard"] for name in ("fraction", "margin", "guide"))]
RELATION_FLAGS = st.lists(st.booleans(), min_size=len(RELATIONS), max_size=len(RELATIONS))


ANY_SETTING = st.fixed_dictionaries(
    {
        "symmetric": st.booleans(),
        "positives": st.sampled_from(["target", "mean", "sum"]),
        "decoupled": st.booleans(),
        "hardness": st.sampled_from([0.0, 0.3, 2.0]),
        "debias": st.sampled_from([0.0, 0.1, 0.9]),
        "guard": st.sampled_from(GUARDS),
    }
)
# Temperatures from 100 to 1e-4.
ANY_SCALE = st.sampled_from([0.01, 1.0, 20.0, 100.0, 1e4])


def assert_near_slow_loop(contrast, objective, loop):
    """Losses and gradients, but for the rounding of logits, which grows with the scale."""
    found, wanted = objective(contrast), loop(contrast)
    room = 1e-11 * max(1.0, float(contrast.scale.detach()))
    pairs = zip(gradients(found, contrast), gradients(wanted, contrast), strict=True)
    for one, other in [(found.detach(), wanted.detach()), *pairs]:
        assert float((one - other).abs().max()) <= room * max(1.0, float(other.abs().max()))


@settings(deadline=None, max_examples=60)
@given(
    flags=RELATION_FLAGS,
    seed=st.integers(0, 10_000),
    num_anchors=st.integers(1, 9),
    # In one dimension cosines of -1 lie on the edge of what debias allows: there are two slopes.
    dim=st.integers(2, 6),
    scale=ANY_SCALE,
    keywords=ANY_SETTING,
    shared_targets=st.booleans(),
)
def test_any_shape_relation_and_setting_equals_the_slow_loop(
    flags, seed, num_anchors, dim, scale, keywords, shared_targets
):
    options = Options(**dict(zip(RELATIONS, flags, strict=True)), guide=True)
    contrast = draw_contrast(options, seed=seed, num_anchors=num_anchors, dim=dim, scale=scale)
    if shared_targets:
        # One column is the target of several anchors, as an image is of all its captions.
        contrast = replace(contrast, targets=contrast.targets // 2)
    loop = partial(slow_info_nce, **keywords)
    assert_near_slow_loop(contrast, partial(info_nce, **keywords), loop)


@settings(deadline=None, max_examples=30)
@given(
    flags=RELATION_FLAGS,
    seed=st.integers(0, 10_000),
    num_anchors=st.integers(1, 9),
    dim=st.integers(1, 6),
    scale=ANY_SCALE,
    positives=st.sampled_from(["target", "sum"]),
    guard=st.sampled_from(GUARDS),
)
def test_any_shape_and_relation_of_sigmoid_equals_the_slow_loop(
    flags, seed, num_anchors, dim, scale, positives, guard
):
    options = Options(**dict(zip(RELATIONS, flags, strict=True)), guide=True)
    contrast = draw_contrast(options, seed=seed, num_anchors=num_anchors, dim=dim, scale=scale)
    keywords = {"positives": positives, "guard": guard}
    loop = partial(slow_sigmoid, **keywords)
    assert_near_slow_loop(contrast, partial(sigmoid, **keywords), loop)


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1e2])
@pytest.mark.parametrize("name", SETTINGS)
def test_float32_loses_no_more_than_the_rounding_of_its_logits_at_any_temperature(name, temperature):
    contrast, keywords = drawn([*RELATIONS, name], seed=4, dtype=torch.float32, scale=1 / temperature)
    exact = converted(contrast, torch.float64)
    found, wanted = info_nce(contrast, **keywords), slow_info_nce(exact, **keywords)
    off = (found - wanted).detach().abs().max()
    assert float(off) < 1e-6 * max(1.0, float(wanted.detach().abs().max()))
    # The error of a logit is a share of its probability.
    room = max(1e-5, 4 * torch.finfo(torch.float32).eps / temperature)
    pairs = zip(gradients(found, contrast), gradients(wanted, exact), leaves(contrast), strict=True)
    for gradient, reference, leaf in pairs:
        # Of one term: terms may cancel, or all vanish.
        unit = 1.0 if leaf is contrast.scale or leaf is contrast.bias else 1 / temperature
        assert float((gradient - reference).abs().max()) < room * max(unit, float(reference.abs().max()))

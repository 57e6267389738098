"""The composed colour map equals its operations in turn, and stands near clamped HSV jitter."""

from dataclasses import fields, replace
from itertools import permutations

import per_image
import pytest
import torch

from retrieval_cl.augmentation.colour import (
    Jitter,
    compose_jitter,
    draw_colours,
    draw_jitter,
    grey,
    turn_hue,
)
from retrieval_cl.augmentation.recipe import Recipe

STRONG = Recipe(jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def apply(colours, images):
    flat = images.flatten(2)
    mean = flat.mean(dim=2, keepdim=True)
    return (colours.pixel @ flat + colours.mean @ mean).view_as(images)


def row(jitter, i):
    factors = [float(getattr(jitter, each.name)[i]) for each in fields(Jitter)[:4]]
    return factors, jitter.order[i].tolist()


def test_map_equals_the_operations_in_turn_without_clamps_in_all_orders():
    jitter = draw_jitter(STRONG, 24, generator=generator())
    jitter = replace(jitter, order=torch.tensor(list(permutations(range(4)))))
    images = torch.rand(24, 3, 6, 7, dtype=torch.float64, generator=generator(1))
    found = apply(compose_jitter(jitter), images)
    for i, image in enumerate(images):
        expected = per_image.jitter(image, *row(jitter, i), hue=per_image.turned_hue, limit=lambda x: x)
        assert (found[i] - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("first", [False, True])
def test_grey_comes_last_or_first_as_the_recipe_says(first):
    recipe = replace(STRONG, grey=1.0, grey_first=first)
    images = torch.rand(8, 3, 5, 5, dtype=torch.float64)
    found = apply(draw_colours(recipe, 8, generator=generator()), images)
    jitter = draw_jitter(STRONG, 8, generator=generator())
    for i, image in enumerate(images):
        image = per_image.grey(image) if first else image
        expected = per_image.jitter(image, *row(jitter, i), hue=per_image.turned_hue, limit=lambda x: x)
        expected = expected if first else per_image.grey(expected)
        assert (found[i] - expected).abs().max() < 1e-12 * expected.abs().max()


def test_grey_has_equal_channels_and_leaves_the_others():
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    found = apply(grey(torch.tensor([True, False])), images)
    assert torch.allclose(found[0], per_image.grey(images[0]), rtol=0, atol=1e-15)
    assert torch.equal(found[1], images[1])


def test_nothing_to_do_is_the_identity_to_the_bit():
    for recipe in (Recipe(), Recipe(jitter=1.0), replace(STRONG, jitter=0.0)):
        colours = draw_colours(recipe, 5, generator=generator())
        assert torch.equal(colours.pixel, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
        assert not colours.mean.any()


def test_a_third_of_a_circle_changes_channels_as_hsv_does():
    image = torch.rand(3, 4, 5, dtype=torch.float64)
    for turn in (1 / 3, -1 / 3):
        found = (turn_hue(torch.tensor([turn], dtype=torch.float64))[0] @ image.flatten(1)).view_as(image)
        assert torch.allclose(found, per_image.hsv_hue(image, turn), atol=1e-12)
    assert torch.allclose(found, image.roll(-1, 0), atol=1e-12)


@pytest.mark.parametrize(("turn", "most"), [(0.05, 4.0), (0.1, 6.5), (0.2, 7.5), (-0.1, 6.5)])
def test_hue_stays_near_that_of_hsv(turn, most):
    images = per_image.photographs(64, 16).double() / 255
    matrix = turn_hue(torch.tensor([turn], dtype=torch.float64))[0]
    found = (matrix @ images.flatten(2)).view_as(images).clamp(0, 1)
    expected = torch.stack([per_image.hsv_hue(image, turn) for image in images])
    distance, unturned = ((x - expected).abs().mean() * 255 for x in (found, images))
    assert distance < most and distance < 0.9 * unturned


@pytest.mark.parametrize(
    ("strengths", "moments"), [((0.4, 0.4, 0.2, 0.1), 0.002), ((0.8, 0.8, 0.8, 0.2), 0.008)]
)
def test_same_parameters_give_nearly_the_colours_of_clamped_hsv_jitter(strengths, moments):
    images = per_image.photographs(400, 8).double() / 255
    jitter = draw_jitter(jitter_of(strengths), 400, generator=generator())
    ours = apply(compose_jitter(jitter), images).clamp(0, 1)
    theirs = torch.stack([per_image.jitter(image, *row(jitter, i)) for i, image in enumerate(images)])
    # Stated tolerances, of 0 .. 1: of a pixel on average, and of the moments below.
    assert (ours - theirs).abs().mean() < min(0.025, 0.15 * (images - theirs).abs().mean())
    assert moments_differ_by(ours, theirs) < moments


def test_jittered_colours_have_the_statistics_of_jitter_drawn_one_by_one():
    strengths = (0.4, 0.4, 0.4, 0.1)
    images = per_image.photographs(800, 6).double() / 255
    chance = per_image.chance(2)
    theirs = torch.stack(
        [per_image.jitter(image, *per_image.draw_jitter(strengths, chance)) for image in images]
    )
    ours = apply(draw_colours(jitter_of(strengths), 800, generator=generator()), images).clamp(0, 1)
    assert moments_differ_by(ours, theirs) < 0.02


def jitter_of(strengths):
    names = ("brightness", "contrast", "saturation", "hue")
    return Recipe(jitter=1.0, **dict(zip(names, strengths, strict=True)))


def moments_differ_by(x, y):
    """The mean of each channel, its spread, and that of images' mean colours: the greatest difference."""

    def moments(images):
        return torch.stack([images.mean((0, 2, 3)), images.std((0, 2, 3)), images.mean((2, 3)).std(0)])

    return (moments(x) - moments(y)).abs().max()


def test_factors_orders_and_share_are_drawn_as_published():
    jitter = draw_jitter(replace(STRONG, jitter=0.8, brightness=1.5), 24_000, generator=generator())
    touched = jitter.brightness != 1
    assert abs(touched.double().mean() - 0.8) < 0.01
    assert torch.equal(touched, jitter.hue != 0) and torch.equal(touched, jitter.contrast != 1)
    # max(0, 1 - 1.5) .. 2.5, evenly
    brightness = jitter.brightness[touched]
    assert 0 <= brightness.min() < 0.01 and 2.49 < brightness.max() <= 2.5
    assert abs(brightness.mean() - 1.25) < 0.02
    contrast, hue = jitter.contrast[touched], jitter.hue[touched]
    assert 0.2 <= contrast.min() < 0.21 and 1.79 < contrast.max() <= 1.8
    assert -0.2 <= hue.min() < -0.19 and 0.19 < hue.max() <= 0.2 and abs(hue.mean()) < 0.005
    orders, counts = jitter.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 850 and counts.max() < 1150
    assert abs(torch.corrcoef(torch.stack([brightness, contrast]))[0, 1]) < 0.03

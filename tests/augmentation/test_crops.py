"""Boxes are drawn as torchvision's RandomResizedCrop draws them, one image at a time."""

import per_image
import pytest
import torch

from retrieval_cl.augmentation.crops import draw_crops
from retrieval_cl.augmentation.recipe import Recipe

RATIO = (3 / 4, 4 / 3)


def draw(recipe, count, source, seed=0):
    return draw_crops(recipe, count, source=source, generator=torch.Generator().manual_seed(seed))


def table(crops):
    return torch.stack([crops.top, crops.left, crops.height, crops.width], dim=1).double()


@pytest.mark.parametrize("source", [(32, 32), (40, 64), (20, 70)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0), (0.7, 1.0)])
def test_boxes_have_the_means_and_covariances_of_boxes_drawn_one_by_one(source, scale):
    ours = table(draw(Recipe(crop_scale=scale), 20_000, source))
    chance = per_image.chance(1)
    theirs = [per_image.draw_box(*source, scale=scale, ratio=RATIO, chance=chance) for _ in range(10_000)]
    theirs = torch.tensor(theirs, dtype=torch.float64)
    # Five standard errors of a difference of means; products' are estimated the same way.
    for power in (1, 2):
        a, b = (
            torch.cat([x, x[:, [2]] * x[:, [3]], x[:, [0]] * x[:, [2]]], 1) ** power for x in (ours, theirs)
        )
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt() + 1e-9
        assert ((a.mean(0) - b.mean(0)).abs() / error).max() < 5


def test_every_box_lies_in_its_image_and_has_an_allowed_area_and_ratio():
    crops = draw(Recipe(crop_scale=(0.08, 1.0)), 5000, (48, 64))
    assert (crops.top >= 0).all() and (crops.top + crops.height <= 48).all()
    assert (crops.left >= 0).all() and (crops.left + crops.width <= 64).all()
    area = crops.height * crops.width
    # Sides are rounded to whole pixels.
    assert area.min() >= 0.07 * 48 * 64
    ratio = crops.width / crops.height
    assert ratio.min() > 0.70 and ratio.max() < 1.43


def test_box_that_never_fits_is_the_greatest_allowed_one_in_the_middle():
    wide = draw(Recipe(crop_scale=(1.0, 1.0)), 6, (8, 64))
    assert table(wide).tolist() == [[0, 26, 8, 11]] * 6
    tall = draw(Recipe(crop_scale=(1.0, 1.0)), 6, (64, 8))
    assert table(tall).tolist() == [[26, 0, 11, 8]] * 6


def test_whole_square_can_be_drawn():
    crops = draw(Recipe(crop_ratio=(1.0, 1.0)), 6, (32, 32))
    assert table(crops).tolist() == [[0, 0, 32, 32]] * 6


def test_flip_has_its_probability():
    assert not draw(Recipe(flip=0.0), 100, (8, 8)).flipped.any()
    assert draw(Recipe(flip=1.0), 100, (8, 8)).flipped.all()
    assert abs(draw(Recipe(flip=0.5), 10_000, (8, 8)).flipped.double().mean() - 0.5) < 0.02


def test_boxes_of_a_batch_differ():
    assert len(table(draw(Recipe(crop_scale=(0.08, 1.0)), 64, (96, 96))).unique(dim=0)) > 60

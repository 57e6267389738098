"""Crop, flip and resize by weights equal `interpolate` on each cut-out box."""

import per_image
import pytest
import torch

from retrieval_cl.augmentation.crops import Crops, draw_crops
from retrieval_cl.augmentation.recipe import Recipe
from retrieval_cl.augmentation.resample import crop_weights, weigh


def boxes(*rows, flipped):
    return Crops(*torch.tensor(rows).unbind(dim=1), torch.tensor(flipped))


def resample(pixels, crops, size):
    weights = crop_weights(crops, size, source=tuple(pixels.shape[2:]), device=pixels.device)
    return weigh(pixels, *weights)


@pytest.mark.parametrize(("source", "size"), [((32, 32), 32), ((40, 24), 16), ((24, 40), 64), ((96, 80), 20)])
def test_crop_and_flip_equal_interpolate_on_each_box(source, size):
    recipe = Recipe(crop_scale=(0.05, 1.0), flip=0.5)
    crops = draw_crops(recipe, 24, source=source, generator=torch.Generator().manual_seed(0))
    pixels = torch.rand(24, 3, *source, generator=torch.Generator().manual_seed(1))
    found = resample(pixels, crops, size)
    for i, image in enumerate(pixels.double()):
        box = [int(each[i]) for each in (crops.top, crops.left, crops.height, crops.width)]
        expected = per_image.crop(image, box, size, flipped=bool(crops.flipped[i]))
        assert (found[i] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_enlarged_box_is_plain_bilinear():
    pixels = torch.rand(1, 3, 20, 20)
    found = resample(pixels, boxes((3, 4, 7, 9), flipped=[False]), 16)
    expected = per_image.crop(pixels[0].double(), (3, 4, 7, 9), 16, antialias=False)
    assert (found[0] - expected).abs().max() < 1e-5


def test_whole_box_without_resize_gives_the_bits_back():
    pixels = torch.rand(2, 3, 17, 17)
    found = resample(pixels, boxes((0, 0, 17, 17), (0, 0, 17, 17), flipped=[False, True]), 17)
    assert torch.equal(found[0], pixels[0]) and torch.equal(found[1], pixels[1].flip(2))


def test_shrinking_averages_all_pixels():
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, :, ::2, ::2] = 1
    found = resample(pixels, boxes((0, 0, 64, 64), flipped=[False]), 8)
    assert (found - 0.25).abs().max() < 0.02

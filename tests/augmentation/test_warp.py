"""Crop, flip, turn, slant and shift in one sampling, beside a loop over pixels."""

import math

import per_image
import pytest
import torch

from retrieval_cl.augmentation.blur import Blurs
from retrieval_cl.augmentation.crops import Crops
from retrieval_cl.augmentation.recipe import Recipe
from retrieval_cl.augmentation.warp import WarpFrames, affine_maps, draw_warps


def unblurred(count):
    return Blurs(torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.float64), 1)


def warp(image, box, size, *, flipped=False, angle=0.0, slant=0.0, shift=(0.0, 0.0)):
    crops = Crops(*(torch.tensor([each]) for each in box), torch.tensor([flipped]))
    angles, slants, shifts = (torch.tensor([each], dtype=torch.float64) for each in (angle, slant, shift))
    source = (image.shape[1], image.shape[2])
    maps = affine_maps(crops, angles, slants, shift=shifts, source=source)
    return WarpFrames(maps).sample(image[None], size, blurs=unblurred(1))[0]


def loop(image, box, size, *, flipped, angle, slant, shift):
    top, left, height, width = box
    found = torch.zeros(3, size, size, dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    for row in range(size):
        for column in range(size):
            u = ((column + 0.5) / size - 0.5) * width * (-1 if flipped else 1)
            v = ((row + 0.5) / size - 0.5) * height
            u += slant * v
            x = left + width / 2 + shift[0] * width + cos * u - sin * v
            y = top + height / 2 + shift[1] * height + sin * u + cos * v
            found[:, row, column] = torch.from_numpy(per_image.bilinear_or_black(image.numpy(), x, y))
    return found


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    ("source", "box"), [((12, 12), (0, 0, 12, 12)), ((10, 14), (2, 3, 7, 8)), ((14, 10), (4, 1, 9, 6))]
)
def test_warp_equals_a_loop_over_pixels(source, box, flipped):
    image = torch.rand(3, *source, generator=torch.Generator().manual_seed(3))
    given = {"flipped": flipped, "angle": 0.3, "slant": -0.2, "shift": (0.1, -0.15)}
    expected = loop(image.double(), box, 9, **given)
    assert (warp(image, box, 9, **given) - expected).abs().max() < 1e-5 * expected.max()


def test_no_warp_gives_the_image_back():
    image = torch.rand(3, 16, 16)
    assert torch.allclose(warp(image, (0, 0, 16, 16), 16), image, rtol=0, atol=1e-6)


def test_quarter_turn_is_a_turn_by_ninety_degrees():
    image = torch.rand(3, 16, 16)
    found = warp(image, (0, 0, 16, 16), 16, angle=math.pi / 2)
    # Reading along (cos, sin) of a quarter turn clockwise in an image turns what is seen the other way.
    assert torch.allclose(found, image.rot90(1, (1, 2)), atol=1e-5)


def test_shift_by_whole_pixels_lets_black_in():
    image = torch.rand(3, 8, 8) + 0.5
    found = warp(image, (0, 0, 8, 8), 8, shift=(0.25, 0.0))
    assert torch.allclose(found[:, :, :6], image[:, :, 2:], atol=1e-5)
    assert found[:, :, 6:].abs().max() < 1e-5


def test_fine_pattern_turns_grey_where_the_source_is_far_larger():
    image = torch.zeros(3, 64, 64)
    image[:, ::2, ::2] = 1
    image[:, 1::2, 1::2] = 1
    found = warp(image, (0, 0, 64, 64), 8, angle=0.1)
    assert (found[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.05


def test_turns_slants_and_shifts_stay_within_the_recipe_and_differ():
    recipe = Recipe(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), rotation=20.0, shift=0.1)
    maps = draw_warps(recipe, 2000, source=(8, 8), generator=torch.Generator().manual_seed(0)).maps
    angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert 19.5 < angles.max() <= 20 and -20 <= angles.min() < -19.5 and abs(angles.mean()) < 1
    # The middle of the result in coordinates from -1 to 1: twice the share.
    assert 0.195 < maps[:, :, 2].max() <= 0.2 and abs(maps[:, :, 2].mean()) < 0.01
    assert len(maps.unique(dim=0)) == 2000


def test_blur_after_a_warp_is_that_of_the_warped_image():
    image = torch.rand(2, 3, 12, 12)
    recipe = Recipe(rotation=10.0)
    frames = draw_warps(recipe, 2, source=(12, 12), generator=torch.Generator().manual_seed(0))
    plain = frames.sample(image, 12, blurs=unblurred(2))
    sigma = torch.tensor([1.0, 0.7], dtype=torch.float64)
    found = frames.sample(image, 12, blurs=Blurs(torch.tensor([False, True]), sigma, 3))
    assert torch.equal(found[0], plain[0])
    assert (found[1] - per_image.blur(plain[1].double(), 0.7, 3)).abs().max() < 1e-5

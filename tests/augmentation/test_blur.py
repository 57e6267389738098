"""Blur by a matrix of weights equals a convolution with mirrored borders."""

import per_image
import pytest
import torch

from retrieval_cl.augmentation.blur import blur_radius, blur_weights, draw_blurs
from retrieval_cl.augmentation.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(("size", "radius"), [(12, 1), (12, 4), (9, 8)])
def test_weights_blur_as_a_convolution_does(size, radius):
    images = torch.rand(5, 3, size, size)
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    lines = blur_weights(sigma, size, radius=radius, device=CPU)[:, None]
    found = lines @ images @ lines.transpose(2, 3)
    for one, image, s in zip(found, images.double(), sigma, strict=True):
        assert (one - per_image.blur(image, float(s), radius)).abs().max() < 1e-5


def test_even_image_stays_even():
    lines = blur_weights(torch.tensor([0.1, 2.0], dtype=torch.float64), 16, radius=7, device=CPU)
    assert torch.allclose(lines.sum(dim=2), torch.ones(2, 16), atol=1e-6)


@pytest.mark.parametrize(("size", "radius"), [(224, 11), (96, 4), (32, 1), (8, 1)])
def test_kernel_spans_a_tenth_of_the_side(size, radius):
    assert blur_radius(Recipe(blur=1.0), size) == radius


@pytest.mark.parametrize(("size", "radius"), [(224, 12), (32, 12), (6, 3), (2, 1)])
def test_kernel_of_the_whole_side_reaches_six_sigma(size, radius):
    assert blur_radius(Recipe(blur=1.0, blur_kernel=1.0), size) == radius


def test_sigma_is_even_between_its_ends_and_the_share_is_the_probability():
    blurs = draw_blurs(Recipe(blur=0.3), 20_000, size=32, generator=torch.Generator().manual_seed(0))
    assert abs(blurs.chosen.double().mean() - 0.3) < 0.015
    assert 0.1 <= blurs.sigma.min() < 0.11 and 1.99 < blurs.sigma.max() <= 2
    assert abs(blurs.sigma.mean() - 1.05) < 0.02 and abs(blurs.sigma.std() - 1.9 / 12**0.5) < 0.02

"""Brightness, contrast, saturation, hue and grey, in any order, as one linear map of an image's colours.

Each of these acts on a colour x of an image of mean colour m as P x + Q m, and on m as (P + Q) m. So any
chain of them is again of this form, and its matrices are found on the host before a pixel is read. Two things
differ from torchvision's ColorJitter: colours are clamped once, after all of them, not after each; and hue is
turned about the grey axis, which keeps the mean of the channels, where HSV keeps the greatest and the least.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import final

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from retrieval_cl.augmentation.draws import coins, symmetric, uniform
from retrieval_cl.augmentation.recipe import Recipe

# Luma of ITU-R BT.601, as Pillow and torchvision have it.
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
TO_GREY = LUMA.expand(3, 3)
SAME = torch.eye(3, dtype=torch.float64)
# The cross product with the unit vector of the grey axis (Rodrigues).
TURN = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / 3**0.5


@final
@dataclass(frozen=True, eq=False)
class ColourMap:
    """x -> P x + Q m, for a colour x of an image of mean colour m; on the host.

    Attributes:
        pixel: P.
        mean: Q.
    """

    pixel: Float64[Tensor, "B 3 3"]
    mean: Float64[Tensor, "B 3 3"]

    def take(self, rows: slice) -> ColourMap:
        """The maps of some images."""
        return ColourMap(self.pixel[rows], self.mean[rows])

    def then(self, later: ColourMap) -> ColourMap:
        """Both in turn; the later one meets the mean that this one leaves."""
        pixel = later.pixel @ self.pixel
        return ColourMap(pixel, later.pixel @ self.mean + later.mean @ (self.pixel + self.mean))


@final
@dataclass(frozen=True, eq=False)
class Jitter:
    """What is done to each image's colours; factors of 1 and a turn of 0 change nothing.

    Attributes:
        brightness: factor.
        contrast: factor of the distance from the mean grey.
        saturation: factor of the distance from the pixel's grey.
        hue: turn, in full circles.
        order: which of the four, by these numbers 0 to 3, comes first, second, third, last.
    """

    brightness: Float64[Tensor, " B"]
    contrast: Float64[Tensor, " B"]
    saturation: Float64[Tensor, " B"]
    hue: Float64[Tensor, " B"]
    order: Int64[Tensor, "B 4"]


def draw_colours(recipe: Recipe, count: int, *, generator: torch.Generator) -> ColourMap:
    """Jitter and grey of each image, each with its probability."""
    jitter = compose_jitter(draw_jitter(recipe, count, generator=generator))
    greyed = grey(coins(count, recipe.grey, generator=generator))
    return greyed.then(jitter) if recipe.grey_first else jitter.then(greyed)


def draw_jitter(recipe: Recipe, count: int, *, generator: torch.Generator) -> Jitter:
    """Factors and order of each image; for those that are not jittered, what changes nothing."""
    jittered = coins(count, recipe.jitter, generator=generator)

    def factor(strength: float) -> Float64[Tensor, " B"]:
        drawn = uniform(count, (max(0.0, 1 - strength), 1 + strength), generator=generator)
        return torch.where(jittered, drawn, 1.0)

    factors = [factor(each) for each in (recipe.brightness, recipe.contrast, recipe.saturation)]
    hue = torch.where(jittered, symmetric(count, recipe.hue, generator=generator), 0.0)
    order = torch.rand(count, 4, generator=generator).argsort(dim=1)
    return Jitter(factors[0], factors[1], factors[2], hue, order)


def compose_jitter(jitter: Jitter) -> ColourMap:
    """The four operations of each image in its order."""
    pixel = torch.stack(
        [
            _matrix(jitter.brightness) * SAME,
            _matrix(jitter.contrast) * SAME,
            _towards_grey(jitter.saturation),
            turn_hue(jitter.hue),
        ],
        dim=1,
    )
    mean = torch.zeros_like(pixel)
    mean[:, 1] = (1 - _matrix(jitter.contrast)) * TO_GREY
    rows = torch.arange(len(pixel))
    chain = ColourMap(SAME.expand(len(pixel), 3, 3), torch.zeros(len(pixel), 3, 3, dtype=torch.float64))
    for turn in jitter.order.unbind(dim=1):
        chain = chain.then(ColourMap(pixel[rows, turn], mean[rows, turn]))
    return chain


def turn_hue(turns: Float64[Tensor, " B"]) -> Float64[Tensor, "B 3 3"]:
    """Rotation of colours about the grey axis: HSV's hue exactly at thirds of a circle, near it between."""
    angle = _matrix(2 * pi * turns)
    return SAME + angle.sin() * TURN + (1 - angle.cos()) * (TURN @ TURN)


def grey(chosen: Bool[Tensor, " B"]) -> ColourMap:
    """Takes the colours of the chosen images away."""
    pixel = torch.where(_matrix(chosen), TO_GREY, SAME)
    return ColourMap(pixel, torch.zeros_like(pixel))


def _towards_grey(factor: Float64[Tensor, " B"]) -> Float64[Tensor, "B 3 3"]:
    return _matrix(factor) * SAME + (1 - _matrix(factor)) * TO_GREY


def _matrix(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]

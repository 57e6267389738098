"""Random boxes to cut out of images: the crop of "Inception", as torchvision's RandomResizedCrop draws it."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import final

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from retrieval_cl.augmentation.draws import Interval, coins, uniform
from retrieval_cl.augmentation.recipe import Recipe

TRIES = 10


@final
@dataclass(frozen=True, eq=False)
class Crops:
    """One box an image, in whole pixels, on the host.

    Attributes:
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
        flipped: whether the box is mirrored, left to right.
    """

    top: Int64[Tensor, " B"]
    left: Int64[Tensor, " B"]
    height: Int64[Tensor, " B"]
    width: Int64[Tensor, " B"]
    flipped: Bool[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.top)

    def take(self, rows: slice) -> Crops:
        """The boxes of some images."""
        return Crops(self.top[rows], self.left[rows], self.height[rows], self.width[rows], self.flipped[rows])


def draw_crops(recipe: Recipe, count: int, *, source: tuple[int, int], generator: torch.Generator) -> Crops:
    """A box for each image of `source` (height, width), its place even among those where it fits.

    Area and ratio are drawn up to ten times until the box fits; if none does, the greatest box in the middle
    whose ratio is allowed (Szegedy et al. 2015, section 6; torchvision's fallback).
    """
    sides = _draw_sides(recipe, (TRIES, count), source=source, generator=generator)
    height, width = _first_that_fits(*sides, fallback=_middle_sides(recipe.crop_ratio, source), source=source)
    fallen_back = ~_fits(*sides, source=source).any(dim=0)
    corners = []
    for whole, part in zip(source, (height, width), strict=True):
        free = whole - part
        drawn = (uniform(count, (0.0, 1.0), generator=generator) * (free + 1)).long()
        corners.append(torch.where(fallen_back, free // 2, drawn))
    flipped = coins(count, recipe.flip, generator=generator)
    return Crops(corners[0], corners[1], height, width, flipped)


def _draw_sides(
    recipe: Recipe, shape: tuple[int, int], *, source: tuple[int, int], generator: torch.Generator
) -> tuple[Int64[Tensor, "T B"], Int64[Tensor, "T B"]]:
    """Heights and widths, some larger than the image."""
    tries, count = shape
    least, greatest = recipe.crop_ratio
    area = source[0] * source[1] * uniform(tries * count, recipe.crop_scale, generator=generator)
    ratio = uniform(tries * count, (log(least), log(greatest)), generator=generator).exp()
    height, width = ((area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long())
    return height.view(shape), width.view(shape)


def _fits(
    height: Int64[Tensor, "T B"], width: Int64[Tensor, "T B"], *, source: tuple[int, int]
) -> Bool[Tensor, "T B"]:
    return (height > 0) & (height <= source[0]) & (width > 0) & (width <= source[1])


def _first_that_fits(
    height: Int64[Tensor, "T B"],
    width: Int64[Tensor, "T B"],
    *,
    fallback: tuple[int, int],
    source: tuple[int, int],
) -> tuple[Int64[Tensor, " B"], Int64[Tensor, " B"]]:
    fits = _fits(height, width, source=source)
    first = fits.int().argmax(dim=0, keepdim=True)
    found = [each.gather(0, first).squeeze(0) for each in (height, width)]
    return (
        torch.where(fits.any(dim=0), found[0], fallback[0]),
        torch.where(fits.any(dim=0), found[1], fallback[1]),
    )


def _middle_sides(ratios: Interval, source: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the greatest box of an allowed ratio."""
    height, width = source
    least, greatest = ratios
    if width < least * height:
        return min(height, round(width / least)), width
    if width > greatest * height:
        return height, min(width, round(height * greatest))
    return height, width

"""Crop, flip, rotation, shear and shift as one affine sampling; what lies outside of the image is black."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from retrieval_cl.augmentation.blur import Blurs
from retrieval_cl.augmentation.crops import Crops, draw_crops
from retrieval_cl.augmentation.draws import send, symmetric
from retrieval_cl.augmentation.recipe import Recipe


@final
@dataclass(frozen=True, eq=False)
class WarpFrames:
    """Boxes that are turned, slanted and moved; bilinear.

    A source with at least four times the result's side is halved first, or cut to a third and so on, for the
    whole batch alike: bilinear sampling skips pixels only from a step of two on.

    Attributes:
        maps: from the result to the source, both in coordinates from -1 to 1, as `affine_grid` takes them.
    """

    maps: Float64[Tensor, "B 2 3"]

    def take(self, rows: slice) -> WarpFrames:
        """The frames of some images."""
        return WarpFrames(self.maps[rows])

    def sample(
        self, pixels: Float[Tensor, "B 3 H W"], size: int, *, blurs: Blurs
    ) -> Float[Tensor, "B 3 S S"]:
        """Square results of the images, the chosen ones blurred."""
        count, channels, *source = pixels.shape
        grid = affine_grid(send(self.maps, pixels.device), [count, channels, size, size], align_corners=False)
        shrunk = _shrink(pixels, max(1, min(source) // (2 * size)))
        found = grid_sample(shrunk, grid, padding_mode="zeros", align_corners=False)
        if blurs.chosen.any():
            chosen, matrices = blurs.matrices(size, pixels.device)
            lines = matrices.unsqueeze(1)
            blurred = lines @ found.index_select(0, chosen) @ lines.transpose(2, 3)
            found.index_copy_(0, chosen, blurred)
        return found


def draw_warps(
    recipe: Recipe, count: int, *, source: tuple[int, int], generator: torch.Generator
) -> WarpFrames:
    """A box for each image, and how it is turned, slanted and moved."""
    crops = draw_crops(recipe, count, source=source, generator=generator)
    angle = symmetric(count, radians(recipe.rotation), generator=generator)
    slant = symmetric(count, radians(recipe.shear), generator=generator).tan()
    shift = torch.stack([symmetric(count, recipe.shift, generator=generator) for _ in range(2)], dim=1)
    return WarpFrames(affine_maps(crops, angle, slant, shift=shift, source=source))


def affine_maps(
    crops: Crops,
    angle: Float64[Tensor, " B"],
    slant: Float64[Tensor, " B"],
    *,
    shift: Float64[Tensor, "B 2"],
    source: tuple[int, int],
) -> Float64[Tensor, "B 2 3"]:
    """The maps of boxes turned by `angle` radians and moved by `shift` of their width and height."""
    sides = torch.stack([crops.width, crops.height], dim=1).double()
    middle = torch.stack([crops.left, crops.top], dim=1) + sides / 2 + shift * sides
    mirror = torch.where(crops.flipped, -1.0, 1.0)
    cos, sin, one = angle.cos(), angle.sin(), torch.ones_like(angle)
    turn = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
    shear = torch.stack([one, slant, 0 * one, one], dim=1).view(-1, 2, 2)
    # In pixels, then in halves of the source's sides.
    box = torch.diag_embed(sides / 2 * torch.stack([mirror, one], dim=1))
    half = torch.tensor([source[1] / 2, source[0] / 2], dtype=torch.float64)
    return torch.cat([turn @ shear @ box, (middle - half).unsqueeze(2)], dim=2) / half[:, None]


def _shrink(pixels: Float[Tensor, "B 3 H W"], factor: int) -> Float[Tensor, "B 3 h w"]:
    if factor == 1:
        return pixels
    sides = [side // factor for side in pixels.shape[2:]]
    return interpolate(pixels, sides, mode="bilinear", antialias=True)

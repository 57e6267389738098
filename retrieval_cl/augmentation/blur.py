"""Gaussian blur as a matrix of weights an image, so that it joins the weights of crop and resize."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import final

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from retrieval_cl.augmentation.draws import coins, send, uniform
from retrieval_cl.augmentation.recipe import Recipe

# Beyond so many sigma a Gaussian is below 2e-8 of its peak.
REACH = 6.0


@final
@dataclass(frozen=True, eq=False)
class Blurs:
    """Which images are blurred and how far, on the host.

    Attributes:
        chosen: whether an image is blurred.
        sigma: of its Gaussian, in pixels.
        radius: pixels either side of the middle of the kernel.
    """

    chosen: Bool[Tensor, " B"]
    sigma: Float64[Tensor, " B"]
    radius: int

    def take(self, rows: slice) -> Blurs:
        """The blurs of some images."""
        return Blurs(self.chosen[rows], self.sigma[rows], self.radius)

    def matrices(self, size: int, device: torch.device) -> tuple[Int64[Tensor, " N"], Float[Tensor, "N S S"]]:
        """Which images are blurred, and the matrix each of their lines is multiplied with, on the device."""
        rows = self.chosen.nonzero().squeeze(1)
        matrices = blur_weights(self.sigma[rows], size, radius=self.radius, device=device)
        return send(rows, device), matrices


def draw_blurs(recipe: Recipe, count: int, *, size: int, generator: torch.Generator) -> Blurs:
    """Whether and how far each image is blurred."""
    chosen = coins(count, recipe.blur, generator=generator)
    sigma = uniform(count, recipe.blur_sigma, generator=generator)
    return Blurs(chosen, sigma, blur_radius(recipe, size))


def blur_radius(recipe: Recipe, size: int) -> int:
    """Pixels either side of the middle of the kernel: 11 where it spans a tenth of 224.

    At least one, and never beyond six of the greatest sigma or the image's own width.
    """
    rule = int(size * recipe.blur_kernel) // 2
    return min(max(1, min(rule, ceil(REACH * recipe.blur_sigma[1]))), size - 1)


def blur_weights(
    sigma: Float64[Tensor, " N"], size: int, *, radius: int, device: torch.device
) -> Float[Tensor, "N S S"]:
    """What each pixel of a line counts in each blurred one, by image; borders are mirrored."""
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
    kernel = send(kernel / kernel.sum(dim=1, keepdim=True), device)
    return (kernel @ _mirrored_taps(size, radius, device)).view(len(sigma), size, size)


@lru_cache(maxsize=16)
def _mirrored_taps(size: int, radius: int, device: torch.device) -> Float[Tensor, "K SS"]:
    """For each tap of the kernel, which pixel (column) it reads for which (row), flattened."""
    read = (torch.arange(size) + torch.arange(-radius, radius + 1)[:, None]).abs()
    read = torch.where(read < size, read, 2 * (size - 1) - read)
    taps = torch.nn.functional.one_hot(read, size).flatten(1)
    return send(taps.float(), device)

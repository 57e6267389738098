"""Random views of a batch of images: each has its own parameters, the work is done for all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from retrieval_cl.augmentation.blur import Blurs, draw_blurs
from retrieval_cl.augmentation.colour import ColourMap, draw_colours
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.augmentation.crops import draw_crops
from retrieval_cl.augmentation.draws import coins, send
from retrieval_cl.augmentation.recipe import Recipe
from retrieval_cl.augmentation.resample import CropFrames, Frames
from retrieval_cl.augmentation.warp import draw_warps

# What a processor does at once, in numbers: temporary tensors stay in its cache.
CHUNK = 2**18


@runtime_checkable
class Augmentation(Protocol):
    """Makes one random view of each image."""

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """Normalised views on the images' device; the generator lives on the host, whatever the device.

        `images` are those from place `first` on of a batch of `total` (None: all of it). Numbers are drawn
        for the whole batch: the parts of a batch, joined, are its views.
        """


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """What is done to each image of a batch, on the host."""

    frames: Frames
    blurs: Blurs
    colours: ColourMap
    solarized: Bool[Tensor, " B"]

    def take(self, rows: slice) -> Drawn:
        """What is done to some of the images."""
        return Drawn(
            self.frames.take(rows), self.blurs.take(rows), self.colours.take(rows), self.solarized[rows]
        )


@final
class RandomView:
    """An `Augmentation` by a recipe: crop, flip and warp, colours, grey, blur, solarize, normalise.

    Everything linear is composed before a pixel is read: crop, resize and blur to two products with matrices
    of weights, colours to one 3 x 3 matrix. So two things differ from the published per-image programs:
    colours are clamped to 0 .. 1 once, after all of these and before solarizing; and the mean grey for
    contrast is that of the blurred crop. `augmentation.colour` tells of hue.
    """

    def __init__(self, recipe: Recipe, *, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """`size`: side of the views; `mean`, `std`: of each channel, of pixels in 0 .. 1."""
        assert len(mean) == len(std) == 3 and min(std) > 0, (mean, std)
        self.recipe, self.size = recipe, size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._draw_frames = draw_warps if recipe.warps else _draw_crop_frames

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """Normalised views on the images' device.

        Args:
            images: in any memory layout.
            generator: of the host; equal states give equal parameters on every device.
            first: the place of the first of `images` in its batch.
            total: images in that batch, for all of which numbers are drawn; None: those that are given.
        """
        source = (images.shape[2], images.shape[3])
        drawn = self.draw(len(images) if total is None else total, source=source, generator=generator)
        return self.apply(images, drawn.take(slice(first, first + len(images))))

    def draw(self, count: int, *, source: tuple[int, int], generator: torch.Generator) -> Drawn:
        """What is done to each of `count` images of height and width `source`."""
        assert generator.device.type == "cpu", generator.device
        return Drawn(
            frames=self._draw_frames(self.recipe, count, source=source, generator=generator),
            blurs=draw_blurs(self.recipe, count, size=self.size, generator=generator),
            colours=draw_colours(self.recipe, count, generator=generator),
            solarized=coins(count, self.recipe.solarize, generator=generator),
        )

    def apply(self, images: UInt8[Tensor, "B 3 H W"], drawn: Drawn) -> Float[Tensor, "B 3 S S"]:
        """The views that were drawn, in single precision, whatever autocast says."""
        views = torch.empty(len(images), 3, self.size, self.size, device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            for rows in _chunks(images, self.size):
                self._fill(views[rows], images[rows], drawn.take(rows))
        return views

    def _fill(self, views: Float[Tensor, "B 3 S S"], images: UInt8[Tensor, "B 3 H W"], drawn: Drawn) -> None:
        pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
        found = drawn.frames.sample(pixels, self.size, blurs=drawn.blurs)
        pixel, mean, shift = self._normalised(drawn.colours, images.device)
        shift = torch.baddbmm(shift, mean, found.mean(dim=(2, 3)).unsqueeze(2))
        torch.baddbmm(shift, pixel, found.flatten(2), out=views.view(len(views), 3, -1))
        for channel, (low, high) in enumerate(self._limits(0.0, 1.0)):
            views[:, channel].clamp_(low, high)
        if drawn.solarized.any():
            rows = send(drawn.solarized.nonzero().squeeze(1), images.device)
            views.index_copy_(0, rows, self._solarize(views.index_select(0, rows)))

    def _normalised(self, colours: ColourMap, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Matrices for bytes and for their mean, and what is added: out come normalised colours."""
        mean, std = (torch.tensor(each, dtype=torch.float64)[:, None] for each in (self.mean, self.std))
        parts = (colours.pixel / (255 * std), colours.mean / (255 * std))
        shift = (-mean / std).expand(len(colours.pixel), 3, 1)
        # One way to the device instead of three.
        packed = send(torch.cat([*parts, shift], dim=2), device)
        return packed[:, :, :3], packed[:, :, 3:6], packed[:, :, 6:]

    def _solarize(self, views: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N 3 S S"]:
        """Inverts bright pixels in place: x becomes 1 - x, said in normalised numbers."""
        for channel, (threshold, whole) in enumerate(self._limits(self.recipe.solarize_threshold, 1.0)):
            plane, zero = views[:, channel], -self.mean[channel] / self.std[channel]
            plane.copy_(torch.where(plane >= threshold, whole + zero - plane, plane))
        return views

    def _limits(self, low: float, high: float) -> Iterator[tuple[float, float]]:
        """Two values of 0 .. 1 as each channel has them when normalised."""
        for mean, std in zip(self.mean, self.std, strict=True):
            yield (low - mean) / std, (high - mean) / std


@final
class TwoViews:
    """Two random views of each image, by two augmentations that may differ."""

    def __init__(self, first: Augmentation, second: Augmentation) -> None:
        """`first`, `second`: of view_a and view_b."""
        self.first, self.second = first, second

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
        """Both views; row i of each shows image i. `first` and `total` as `Augmentation` takes them."""
        view_a = self.first(images, generator=generator, first=first, total=total)
        return view_a, self.second(images, generator=generator, first=first, total=total)


def build_views(
    config: AugmentationConfig, *, size: int, mean: Sequence[float], std: Sequence[float]
) -> TwoViews:
    """The augmentation that a config describes, for an encoder's images.

    Args:
        config: preset and what is changed of it.
        size: side of the views.
        mean: of each channel, of pixels in 0 .. 1; so for `std`.
        std: standard deviation of each channel.
    """
    first, second = config.recipes()
    return TwoViews(
        RandomView(first, size=size, mean=mean, std=std), RandomView(second, size=size, mean=mean, std=std)
    )


def _draw_crop_frames(
    recipe: Recipe, count: int, *, source: tuple[int, int], generator: torch.Generator
) -> CropFrames:
    return CropFrames(draw_crops(recipe, count, source=source, generator=generator))


def _chunks(images: UInt8[Tensor, "B 3 H W"], size: int) -> Iterator[slice]:
    """Rows that are done at once: a processor's cache full of them, or all on other devices."""
    numbers = 3 * max(size * size, images.shape[2] * images.shape[3])
    count = max(1, CHUNK // numbers) if images.device.type == "cpu" else max(1, len(images))
    return (slice(first, first + count) for first in range(0, len(images), count))

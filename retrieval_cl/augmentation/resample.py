"""Crop, flip, resize and blur as two products with a matrix of weights an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from retrieval_cl.augmentation.blur import Blurs
from retrieval_cl.augmentation.crops import Crops
from retrieval_cl.augmentation.draws import send

# Farther than any pixel.
NOWHERE = 1e9


@runtime_checkable
class Frames(Protocol):
    """Where in the source the pixels of each result lie; drawn on the host."""

    def take(self, rows: slice) -> Frames:
        """The frames of some images."""

    def sample(
        self, pixels: Float[Tensor, "B 3 H W"], size: int, *, blurs: Blurs
    ) -> Float[Tensor, "B 3 S S"]:
        """Square results of contiguous images, the chosen ones blurred."""


@final
@dataclass(frozen=True, eq=False)
class CropFrames:
    """Boxes, resized: bilinear, and where a box shrinks, with a filter that widens with it.

    `torch.nn.functional.interpolate` calls the latter antialias; Pillow always does it.
    """

    crops: Crops

    def take(self, rows: slice) -> CropFrames:
        """The frames of some images."""
        return CropFrames(self.crops.take(rows))

    def sample(
        self, pixels: Float[Tensor, "B 3 H W"], size: int, *, blurs: Blurs
    ) -> Float[Tensor, "B 3 S S"]:
        """Square results of contiguous images, the chosen ones blurred: their weights are."""
        source = (pixels.shape[2], pixels.shape[3])
        weights = crop_weights(self.crops, size, source=source, device=pixels.device)
        if blurs.chosen.any():
            chosen, matrices = blurs.matrices(size, pixels.device)
            for each in weights:
                each.index_copy_(0, chosen, torch.bmm(matrices, each.index_select(0, chosen)))
        return weigh(pixels, *weights)


def crop_weights(
    crops: Crops, size: int, *, source: tuple[int, int], device: torch.device
) -> tuple[Float[Tensor, "B S H"], Float[Tensor, "B S W"]]:
    """What each row and each column of the source counts in those of the result, on the device."""
    upright = torch.zeros_like(crops.flipped)
    rows = _axis_weights(crops.top, crops.height, upright, size=size, source=source[0], device=device)
    columns = _axis_weights(
        crops.left, crops.width, crops.flipped, size=size, source=source[1], device=device
    )
    return rows, columns


def weigh(
    pixels: Float[Tensor, "B 3 H W"], rows: Float[Tensor, "B S H"], columns: Float[Tensor, "B S W"]
) -> Float[Tensor, "B 3 S S"]:
    """Sums the columns of contiguous images by their weights, then the rows."""
    count, channels, height, width = pixels.shape
    narrow = torch.bmm(pixels.view(count, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows.unsqueeze(1), narrow.view(count, channels, height, columns.shape[1]))


def _axis_weights(
    start: Int64[Tensor, " B"],
    length: Int64[Tensor, " B"],
    flipped: Bool[Tensor, " B"],
    *,
    size: int,
    source: int,
    device: torch.device,
) -> Float[Tensor, "B S L"]:
    """A triangle about the place of each result in the source, as wide as the step from one to the next."""
    step = length.double() / size
    reach = step.clamp(min=1.0)[:, None]
    first = torch.where(flipped, start + length, start)[:, None]
    slope = torch.where(flipped, -step, step)[:, None]
    # Places in units of the reach, on the host in double precision: few numbers.
    centres = (first + slope * (torch.arange(size) + 0.5)) / reach
    places = torch.arange(source)
    inside = (places >= start[:, None]) & (places < (start + length)[:, None])
    points = torch.where(inside, (places + 0.5) / reach, NOWHERE)
    distance = send(points, device)[:, None, :] - send(centres, device)[:, :, None]
    weights = distance.abs_().neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(dim=2, keepdim=True))

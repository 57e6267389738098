"""Where decoded images lie: some rows of others, or on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from retrieval_cl.core.images import Images

COPY_ROWS = 4096


@final
@dataclass(frozen=True, eq=False)
class PickedImages:
    """Some rows of other images, numbered anew.

    Attributes:
        images: all of them.
        rows: image i is `images` row `rows[i]`.
    """

    images: Images
    rows: Int64[np.ndarray, " N"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.size

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        """The given images, where the others lie."""
        return self.images.take(self.rows[rows])


@final
@dataclass(frozen=True, eq=False)
class DeviceImages:
    """Images on a device, so that no batch waits for a copy.

    Attributes:
        pixels: red, green, blue of each pixel.
    """

    pixels: UInt8[Tensor, "N H W 3"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        _, height, width, _ = self.pixels.shape
        return height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        """The given images, on the device; their channels lie last in memory, as those of `ArrayImages`."""
        chosen = torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)
        return self.pixels[chosen].permute(0, 3, 1, 2)


def to_device(images: Images, device: torch.device, *, max_gb: float) -> Images:
    """The same images on the device, or as they are where they take more than `max_gb` 10^9 bytes."""
    height, width = images.size
    if len(images) * height * width * 3 > max_gb * 1e9:
        return images
    pixels = torch.empty((len(images), height, width, 3), dtype=torch.uint8, device=device)
    for start in range(0, len(images), COPY_ROWS):
        rows = np.arange(start, min(start + COPY_ROWS, len(images)), dtype=np.int64)
        pixels[start : start + len(rows)] = images.take(rows).permute(0, 2, 3, 1)
    return DeviceImages(pixels)

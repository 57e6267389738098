"""Decoded images by row: what sources give, and what encoders and views read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@runtime_checkable
class Images(Protocol):
    """Images of one size, numbered from 0. Where they lie (memory, disk, device) is their own affair."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        """The given images in the given order, red, green, blue; on the device where they lie."""


@final
@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images of an array in memory or mapped from disk.

    Attributes:
        pixels: red, green, blue of each pixel.
    """

    pixels: UInt8[np.ndarray, "N H W 3"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        _, height, width, _ = self.pixels.shape
        return height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        """The given images, on the host; their channels lie last in memory."""
        return torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)

"""Images brought to the square an encoder takes: the shorter side resized, the middle cut out."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

BILINEAR = 2
"""Pillow's number of the filter, as image processors store it."""


def fit_square(images: UInt8[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 S S"]:
    """The middle of each image, its shorter side brought to `size` pixels; float32, 0 to 255, as laid out.

    Bilinear with antialiasing, as Pillow's, but not rounded between; images of that size stay as they are.
    """
    height, width = images.shape[-2:]
    values = images.float()
    if min(height, width) != size:
        values = functional.interpolate(
            values, size=resized_sides(height, width, size=size), mode="bilinear", antialias=True
        )
    top, left = ((side - size) // 2 for side in values.shape[-2:])
    return values[..., top : top + size, left : left + size]


def processor_settings(
    size: int, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> dict[str, Any]:
    """What transformers' `AutoImageProcessor` needs to do as `fit_square` does, and then normalise."""
    return {
        # Named for CLIP, which came first; it resizes the shorter side, cuts the middle, and normalises.
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def resized_sides(height: int, width: int, *, size: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is brought to `size`, in pixels."""
    if height <= width:
        return size, size * width // height
    return size * height // width, size

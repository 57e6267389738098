"""What the image processor of a CLIP or SigLIP model does to an image, done on tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image import Channels
from retrieval_cl.encoders.image_fit import resized_sides
from retrieval_cl.encoders.image_pretrained import to_channels

Filter = Literal["bilinear", "bicubic"]
# Pillow's numbers of the filters, as image processors store them.
_FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
_NUMBERS = {name: number for number, name in _FILTERS.items()}


@final
@dataclass(frozen=True)
class Transform:
    """From bytes to what the model takes; as Pillow does it, within a level of 255.

    Attributes:
        size: side of the square images it gives, in pixels.
        edge: the shorter side is resized to so many pixels and the middle cut out; None: both sides are
            resized to `size`, whatever the shape.
        filter: of the resizing, always with antialiasing.
        mean: taken off red, green, blue of pixels in 0..1.
        std: red, green, blue are divided by it after that.
    """

    size: int
    edge: int | None
    filter: Filter
    mean: Channels
    std: Channels

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """The images resized, cut and normalised, where they lie."""
        values = self._resize(images.float())
        top, left = ((side - self.size) // 2 for side in values.shape[-2:])
        middle = values[..., top : top + self.size, left : left + self.size]
        std, mean = (
            torch.tensor(row, device=images.device).reshape(3, 1, 1) for row in (self.std, self.mean)
        )
        return middle * (1 / (255 * std)) - mean / std

    def settings(self) -> dict[str, Any]:
        """What transformers' `AutoImageProcessor` needs to do the same."""
        cut = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": self.edge},
            "do_center_crop": True,
            "crop_size": {"height": self.size, "width": self.size},
        }
        squeezed = {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": self.size, "width": self.size},
        }
        return {
            **(squeezed if self.edge is None else cut),
            "do_convert_rgb": True,
            "do_resize": True,
            "resample": _NUMBERS[self.filter],
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def _resize(self, values: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H2 W2"]:
        height, width = values.shape[-2:]
        wanted = (self.size, self.size) if self.edge is None else resized_sides(height, width, size=self.edge)
        # As Pillow: along one side, then along the other, whole levels between; bicubic overshoots at edges.
        for between in ((height, wanted[1]), wanted):
            if between != tuple(values.shape[-2:]):
                values = functional.interpolate(values, size=between, mode=self.filter, antialias=True)
                values = values.round().clamp(0, 255)
        return values


def read_transform(settings: dict[str, Any], *, path: str) -> Transform:
    """The transform of an image processor's settings.

    Args:
        settings: as `to_dict` of a processor gives them.
        path: of the model, for errors.

    Raises:
        InputError: the processor does what we cannot.
    """
    side, edge = _sides(settings)
    try:
        mean, std = to_channels(settings["image_mean"]), to_channels(settings["image_std"])
    except (KeyError, TypeError, ValueError):
        side = None
    steps = ("do_resize", "do_rescale", "do_normalize")
    scaled = abs(settings.get("rescale_factor", 0) * 255 - 1) < 1e-6
    if side is None or not (
        scaled and settings.get("resample") in _FILTERS and all(map(settings.get, steps))
    ):
        raise InputError(
            f"encoder.path '{path}': its preprocessor_config.json asks for another transform than resizing "
            f"to a square (resample {' or '.join(map(str, _FILTERS))}), scaling by 1 / 255 and normalising "
            "by three numbers each"
        )
    return Transform(side, edge, _FILTERS[settings["resample"]], mean, std)


def _sides(settings: dict[str, Any]) -> tuple[int | None, int | None]:
    """`size` and `edge` of the transform; size None: it gives no square, or one cut from elsewhere."""
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    edge: int | None = size.get("shortest_edge")
    if edge is None:
        squeezed = not settings.get("do_center_crop") and size.get("height") == size.get("width")
        return (size.get("height") if squeezed else None), None
    if not settings.get("do_center_crop"):
        return None, edge
    side: int | None = crop.get("height")
    return (side if side is not None and side == crop.get("width") and side <= edge else None), edge

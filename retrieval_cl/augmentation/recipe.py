"""The numbers that say how one random view of an image is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Recipe:
    """One random view: crop and warp, then colours, grey, blur, solarize. The defaults change nothing.

    Attributes:
        crop_scale: least and greatest share of the image's area that is cut out and resized.
        crop_ratio: least and greatest width / height of what is cut out, drawn log-uniformly.
        flip: probability of a mirror image.
        rotation: turned by up to so many degrees either way, about the crop's centre.
        shift: moved by up to this share of the crop's sides either way.
        shear: slanted sideways by up to so many degrees either way.
        jitter: probability that brightness, contrast, saturation and hue are jittered, in random order.
        brightness: its factor is drawn from max(0, 1 - this) .. 1 + this; so for the next two.
        contrast: pixels are drawn towards the image's mean grey.
        saturation: pixels are drawn towards their own grey.
        hue: turned by -this .. this, in full circles.
        grey: probability that the colours are taken away.
        grey_first: grey comes before the jitter (MoCo v1).
        blur: probability of a Gaussian blur.
        blur_sigma: least and greatest sigma, in pixels of the result.
        blur_kernel: share of the side that the kernel spans; 1: as far as sigma reaches.
        solarize: probability that bright pixels are inverted.
        solarize_threshold: pixels from here on are bright, of 0 .. 1.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    grey_first: bool = False
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: float = 0.1
    solarize: float = 0.0
    solarize_threshold: float = 0.5

    @property
    def warps(self) -> bool:
        """Whether images are turned, moved or slanted, beyond crop and flip."""
        return any((self.rotation, self.shift, self.shear))

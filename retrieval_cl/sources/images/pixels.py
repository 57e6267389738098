"""One image: decoded to RGB, fitted to a size, and the digest of its pixels. Light: no torch."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from retrieval_cl.sources.images.encoded import Item

DIGEST_BYTES = 16


def decode_image(item: Item, size: int | None, *, fit: str = "crop") -> UInt8[np.ndarray, "H W 3"]:
    """Decodes one image: turned as its EXIF tag says, made RGB, and fitted to `size`.

    Args:
        item: file, bytes or pixels.
        size: side in pixels of the square it is fitted to (bilinear, antialiased); None: as it is.
        fit: how, a key of `FITS`.

    Raises:
        Exception: whatever Pillow raises on a broken image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_aloud(item, size, fit=fit)


def decode_aloud(item: Item, size: int | None, *, fit: str) -> UInt8[np.ndarray, "H W 3"]:
    """As `decode_image`, with the warnings of Pillow: for threads, which share the filters of warnings."""
    if item is None:
        raise ValueError("no image in this row")
    with _open(item) as image:
        if size is not None:
            # JPEG is decoded at a half, a quarter or an eighth of its size where that is twice enough.
            image.draft("RGB", (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        upright = _to_rgb(image)
        return np.array(upright if size is None else FITS[fit](upright, size), dtype=np.uint8)


def digest(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, " 16"]:
    """BLAKE2b of an image's pixels and shape: equal for copies, whatever file they come from."""
    hashed = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    hashed.update(np.ascontiguousarray(pixels).data)
    return np.frombuffer(hashed.digest(), dtype=np.uint8)


def reason(error: Exception) -> str:
    """Why an image is broken, in a line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "no image of a kind that Pillow reads"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open(item: bytes | Path | np.ndarray) -> Image.Image:
    """The image, its header read."""
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    return Image.open(io.BytesIO(item) if isinstance(item, bytes) else item)


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow cuts 16-bit grey off at 255, which leaves a white image.
    if image.mode.startswith("I"):
        return Image.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    return image.convert("RGB")


def _crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _pad(image: Image.Image, size: int) -> Image.Image:
    """The whole image in the middle, the rest in the median colour of its edge."""
    share = size / max(image.size)
    width, height = (max(1, round(side * share)) for side in image.size)
    padded = Image.new("RGB", (size, size), _edge_colour(np.asarray(image)))
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    padded.paste(whole, ((size - width) // 2, (size - height) // 2))
    return padded


def _stretch(image: Image.Image, size: int) -> Image.Image:
    """The whole image, its sides made equal."""
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _edge_colour(pixels: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int, int]:
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0).astype(int).tolist()
    return red, green, blue


FITS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop": _crop,
    "pad": _pad,
    "stretch": _stretch,
}

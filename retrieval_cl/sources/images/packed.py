"""Images of .npz files: an array of pixels, or encoded files one after the other with their offsets."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.encoded import Item, Part
from retrieval_cl.sources.images.folder import file_stamp
from retrieval_cl.sources.images.labels import as_classes
from retrieval_cl.sources.images.split_files import split_files

VALID_KEYS = (
    "'images' (uint8 N x H x W or N x H x W x 3), or 'jpeg' (uint8) with 'offsets' (whole numbers, N + 1)"
)


def read_npz(path: Path) -> list[Part]:
    """Reads an .npz file, or each .npz file of a folder where they are named by split (train.npz, test.npz).

    Besides the images a file may hold `labels` (numbers or strings, N) and `names` (of the classes).

    Raises:
        InputError: a file is missing or damaged, or its arrays are not those above.
    """
    return [_read_file(file, split) for split, file in split_files(path, suffixes=(".npz",))]


@final
@dataclass(frozen=True, eq=False)
class PixelRows:
    """Images of an array."""

    names: Sequence[str]
    pixels: UInt8[np.ndarray, "N H W"] | UInt8[np.ndarray, "N H W 3"]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        return list(self.pixels[start:stop])


@final
@dataclass(frozen=True, eq=False)
class PackedFiles:
    """Encoded images one after the other: image i is `data[offsets[i]:offsets[i + 1]]`."""

    names: Sequence[str]
    data: UInt8[np.ndarray, " bytes"]
    offsets: Int64[np.ndarray, " N1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        bounds = self.offsets[start : stop + 1].tolist()
        return [self.data[low:high].tobytes() for low, high in pairwise(bounds)]


def _read_file(path: Path, split: str | None) -> Part:
    arrays = _load(path)
    encoded = _images(arrays, path)
    labels, classes = _labels(arrays, path, len(encoded))
    splits = None if split is None else [split] * len(encoded)
    return Part(encoded, splits, labels, classes, file_stamp(path))


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable .npz file: {str(error).splitlines()[0]}") from None


def _images(arrays: Mapping[str, np.ndarray], path: Path) -> PixelRows | PackedFiles:
    if "images" in arrays:
        pixels = arrays["images"]
        if pixels.dtype != np.uint8 or not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)):
            raise InputError(f"{path}: 'images' is {_describe(pixels)}; valid is {VALID_KEYS}")
        return PixelRows(_names(path, len(pixels)), pixels)
    if "jpeg" not in arrays or "offsets" not in arrays:
        raise InputError(f"{path}: arrays found are {', '.join(arrays) or 'none'}; needed are {VALID_KEYS}")
    data, offsets = arrays["jpeg"], arrays["offsets"]
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        raise InputError(
            f"{path}: 'jpeg' is {_describe(data)} and 'offsets' {_describe(offsets)}; valid is {VALID_KEYS}"
        )
    bounds = offsets.astype(np.int64)
    if not len(bounds) or bounds[0] < 0 or bounds[-1] > len(data) or (np.diff(bounds) < 0).any():
        raise InputError(f"{path}: 'offsets' must ascend from 0 to at most {len(data)}, the bytes of 'jpeg'")
    return PackedFiles(_names(path, len(bounds) - 1), data, bounds)


def _labels(
    arrays: Mapping[str, np.ndarray], path: Path, num_images: int
) -> tuple[Int64[np.ndarray, " N"] | None, tuple[str, ...]]:
    if "labels" not in arrays:
        return None, ()
    labels = arrays["labels"]
    if labels.shape != (num_images,) or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{path}: 'labels' is {_describe(labels)}; valid are {num_images} numbers or strings"
        )
    names = arrays.get("names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(f"{path}: 'names' is {_describe(names)}; valid are strings, one a class")
    where = f"{path}, labels"
    return as_classes(labels.tolist(), names=None if names is None else names.tolist(), where=where)


def _names(path: Path, count: int) -> list[str]:
    return [f"{path.stem}/{row}" for row in range(count)]


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {' x '.join(str(n) for n in array.shape)}"

"""Small pictures of indexed images: JPEG files end to end in one file, and where each begins."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from retrieval_cl.core.errors import InputError

PICTURES, OFFSETS = "thumbnails.bin", "thumbnail_offsets.npy"
# Long enough to tell what it shows, short enough for a page of a hundred.
LONGEST_SIDE = 96
QUALITY = 85


def to_jpeg(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A JPEG file of an image, made smaller where a side is longer than `LONGEST_SIDE` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=QUALITY)
    return stream.getvalue()


def write_thumbnails(folder: Path, pictures: Iterable[bytes]) -> int:
    """Writes one picture after the other; returns how many."""
    offsets = [0]
    with (folder / PICTURES).open("wb") as stream:
        for picture in pictures:
            offsets.append(offsets[-1] + stream.write(picture))
    np.save(folder / OFFSETS, np.array(offsets, dtype=np.int64), allow_pickle=False)
    return len(offsets) - 1


@final
@dataclass(frozen=True, eq=False)
class Thumbnails:
    """The pictures of an index, read from disk as they are asked for."""

    path: Path
    offsets: Int64[np.ndarray, " N1"]

    @classmethod
    def open(cls, folder: Path) -> Thumbnails:
        """Those that `write_thumbnails` wrote. Raises InputError where there are none."""
        if not (folder / OFFSETS).is_file():
            raise InputError(f"{folder}: an index without pictures; index the images again")
        return cls(folder / PICTURES, np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Sequence[int]) -> list[bytes]:
        """The JPEG files of the given rows."""
        with self.path.open("rb") as stream:
            return [self._read(stream, row) for row in rows]

    def _read(self, stream: io.BufferedReader, row: int) -> bytes:
        assert 0 <= row < len(self), row
        start, stop = (int(offset) for offset in self.offsets[row : row + 2])
        stream.seek(start)
        return stream.read(stop - start)

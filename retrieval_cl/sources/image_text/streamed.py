"""Images that are decoded when they are wanted, by threads, and not kept."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from retrieval_cl.sources.images.cache import refuse_lost
from retrieval_cl.sources.images.decode import num_workers
from retrieval_cl.sources.images.encoded import Encoded, Item
from retrieval_cl.sources.images.pixels import DIGEST_BYTES, decode_aloud, digest, reason

SCAN_ROWS = 256
T = TypeVar("T")
R = TypeVar("R")


@final
@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images of a source, decoded anew whenever they are taken: a pure function of the row.

    An image that turns out to be broken is black, named in a warning and counted in `lost`.

    Attributes:
        encoded: the images.
        side: in pixels, of the square each is fitted to.
        fit: how, as for `decode_image`.
        threads: that decode; None: as many as there are processors.
        max_broken: broken images before the run stops, those of `lost` included.
        lost: images of the source that are broken: name -> reason.
    """

    encoded: Encoded
    side: int
    fit: str
    threads: int | None
    max_broken: int
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.side, self.side

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        """The given images, on the host; their channels lie last in memory.

        Raises:
            InputError: too many are broken.
        """
        pixels = np.zeros((len(rows), self.side, self.side, 3), dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = self._in_threads(self._decode, rows.tolist())
        for place, (row, found) in enumerate(zip(rows.tolist(), decoded, strict=True)):
            if isinstance(found, str):
                self._lose(self.encoded.names[row], found)
            else:
                pixels[place] = found
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def scan(self) -> tuple[UInt8[np.ndarray, "N 16"], dict[int, str]]:
        """Reads all images without decoding them: digests of their files, and row -> reason of broken ones.

        Seen as broken is what is missing or has no header of an image; the rest shows when it is decoded.
        """
        digests = np.zeros((len(self), DIGEST_BYTES), dtype=np.uint8)
        broken: dict[int, str] = {}
        for start in range(0, len(self), SCAN_ROWS):
            items = self.encoded.read(start, min(start + SCAN_ROWS, len(self)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._in_threads(_look, items)
            for row, one in enumerate(found, start=start):
                if isinstance(one, str):
                    broken[row] = one
                else:
                    digests[row] = one
        return digests, broken

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(num_workers(self.threads), thread_name_prefix="decode")

    def _in_threads(self, function: Callable[[T], R], values: Iterable[T]) -> list[R]:
        return list(self._pool.map(function, values))

    def _decode(self, row: int) -> UInt8[np.ndarray, "S S 3"] | str:
        try:
            return decode_aloud(self.encoded.read(row, row + 1)[0], self.side, fit=self.fit)
        # As in decode.py: a broken file makes Pillow raise nearly anything.
        except Exception as error:
            return reason(error)

    def _lose(self, name: str, why: str) -> None:
        if name in self.lost:
            return
        self.lost[name] = why
        refuse_lost(self.lost, self.max_broken)
        warnings.warn(
            f"image '{name}' is broken ({why}): a black one stands in its place; {len(self.lost)} of at most "
            f"{self.max_broken} (source.max_broken)",
            stacklevel=3,
        )


def _look(item: Item) -> UInt8[np.ndarray, " 16"] | str:
    """Digest of an image's file, or why it is none."""
    if isinstance(item, np.ndarray):
        return digest(item)
    try:
        if item is None:
            raise ValueError("no image in this row")
        data = item.read_bytes() if isinstance(item, Path) else item
        Image.open(io.BytesIO(data)).close()
    except Exception as error:
        return reason(error)
    return np.frombuffer(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), dtype=np.uint8)

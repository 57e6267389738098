"""Decodes images to pixels of one size, in spawned processes. What a worker imports stays light: no torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import Thread
from typing import final

import numpy as np
from jaxtyping import UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.encoded import Encoded, Item
from retrieval_cl.sources.images.pixels import DIGEST_BYTES, decode_image, digest, reason

# Large enough that handing a chunk over costs little, small enough that a kill loses little.
CHUNK_BYTES, CHUNK_ROWS = 8 << 20, 1024


@final
class SizesDiffer(InputError):
    """Images are of several sizes, and none is set that they are brought to."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Decoded images of neighbouring rows.

    Attributes:
        start: row of the first.
        pixels: red, green, blue; zeros where the image is broken.
        digests: BLAKE2b of each image's pixels; zeros where it is broken.
        broken: row -> reason.
    """

    start: int
    pixels: UInt8[np.ndarray, "R H W 3"]
    digests: UInt8[np.ndarray, "R 16"]
    broken: dict[int, str]

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + len(self.pixels)


def common_shape(encoded: Encoded, size: int | None) -> tuple[int, int]:
    """Height and width that all images have: `size`, or those of the first one that can be decoded.

    Raises:
        InputError: none can be decoded.
    """
    if size is not None:
        return size, size
    why = "there are no images"
    for row in range(len(encoded)):
        try:
            height, width, _ = decode_image(encoded.read(row, row + 1)[0], None).shape
        except Exception as error:
            why = f"the first, '{encoded.names[0]}': {reason(error)}" if row == 0 else why
        else:
            return height, width
    raise InputError(f"none of {len(encoded)} images can be decoded; {why}")


def chunk_starts(num_rows: int, shape: tuple[int, int]) -> range:
    """The first row of each chunk, for images of this height and width."""
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // (3 * shape[0] * shape[1])))
    return range(0, num_rows, rows)


def decode_chunks(
    encoded: Encoded,
    *,
    starts: Sequence[int],
    rows: int,
    shape: tuple[int, int],
    size: int | None,
    workers: int,
    fit: str = "crop",
) -> Iterator[Chunk]:
    """Decodes chunks in the given order.

    Args:
        encoded: the images.
        starts: first row of each chunk that is wanted.
        rows: rows of a chunk; the last one may be shorter.
        shape: height and width that each image must have.
        size: as for `decode_image`.
        workers: processes; 1 decodes in this one.
        fit: as for `decode_image`.

    Raises:
        SizesDiffer: an image has another shape.
        InputError: a process died.
    """
    tasks = (_Task(encoded, start, min(start + rows, len(encoded)), shape, size, fit) for start in starts)
    workers = min(workers, len(starts))
    if workers <= 1:
        yield from (_decode(*task.unpack()) for task in tasks)
        return
    # spawn: a forked child of a process that has computed with torch hangs.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    waiting: deque[Future[Chunk]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_decode, *task.unpack()))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a process that decodes died: for want of memory, or because a script without "
            "'if __name__ == \"__main__\":' started it; set source.workers to 1, or guard the script"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def num_workers(wanted: int | None) -> int:
    """`wanted`, or as many as this process has processors."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class _Task:
    encoded: Encoded
    start: int
    stop: int
    shape: tuple[int, int]
    size: int | None
    fit: str

    def unpack(self) -> tuple[int, list[Item], list[str], tuple[int, int], int | None, str]:
        # Read here, when it is submitted: a worker gets bytes or paths, never a whole archive.
        items = self.encoded.read(self.start, self.stop)
        names = list(self.encoded.names[self.start : self.stop])
        return self.start, items, names, self.shape, self.size, self.fit


def _start_worker() -> None:
    # Ctrl-C is for the process that began; where that is killed, its workers would wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _decode(
    start: int, items: list[Item], names: list[str], shape: tuple[int, int], size: int | None, fit: str
) -> Chunk:
    pixels = np.zeros((len(items), *shape, 3), dtype=np.uint8)
    digests = np.zeros((len(items), DIGEST_BYTES), dtype=np.uint8)
    broken: dict[int, str] = {}
    for i, item in enumerate(items):
        try:
            image = decode_image(item, size, fit=fit)
        # A broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, IndexError ...
        except Exception as error:
            broken[start + i] = reason(error)
            continue
        if image.shape[:2] != shape:
            raise SizesDiffer(
                f"image '{names[i]}' has {image.shape[1]} x {image.shape[0]} pixels, others {shape[1]} x "
                f"{shape[0]}; set source.size to bring all to one size"
            )
        pixels[i], digests[i] = image, digest(image)
    return Chunk(start, pixels, digests, broken)

"""Decoded images in memory, or in a folder of decoded pixels that is whole or picked up where it was left."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from jaxtyping import UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, read_manifest, write_manifest
from retrieval_cl.sources.images.decode import Chunk, chunk_starts, common_shape, decode_chunks, num_workers
from retrieval_cl.sources.images.encoded import Encoded
from retrieval_cl.sources.images.pixels import DIGEST_BYTES

KIND = "decoded_images"
# Raised when decoding gives other pixels than before.
DECODER = 1
PIXELS, DIGESTS, DONE = "pixels.npy", "digests.npy", "done.jsonl"


@dataclass(frozen=True, eq=False)
class Decoded:
    """All images of a source, decoded.

    Attributes:
        pixels: in memory or mapped from disk; zeros where the image is broken.
        digests: of each image's pixels.
        broken: row -> reason.
    """

    pixels: UInt8[np.ndarray, "N H W 3"]
    digests: UInt8[np.ndarray, "N 16"]
    broken: dict[int, str]


def decode_to_memory(
    encoded: Encoded,
    *,
    size: int | None,
    memory_gb: float,
    workers: int | None,
    max_broken: int,
    fit: str = "crop",
) -> Decoded:
    """Decodes all images into memory.

    Raises:
        InputError: they do not fit, too many are broken, or one has another size.
    """
    shape = common_shape(encoded, size)
    if (needed := _num_bytes(len(encoded), shape)) > memory_gb * 1e9:
        raise InputError(
            f"{len(encoded)} decoded images of {shape[1]} x {shape[0]} pixels take {needed / 1e9:.1f} GB, "
            f"source.memory_gb is {memory_gb}; set source.cache_dir to a folder with that much room, or "
            "lower source.size"
        )
    decoded = Decoded(
        np.empty((len(encoded), *shape, 3), dtype=np.uint8),
        np.empty((len(encoded), DIGEST_BYTES), dtype=np.uint8),
        {},
    )
    for chunk in _chunks(encoded, set(), shape=shape, size=size, fit=fit, workers=workers):
        _take_over(decoded, chunk)
        refuse_broken(decoded.broken, encoded, max_broken)
    return decoded


def decode_to_folder(
    encoded: Encoded,
    folder: Path,
    *,
    stamp: str,
    size: int | None,
    memory_gb: float,
    workers: int | None,
    max_broken: int,
    fit: str = "crop",
) -> Decoded:
    """Decodes all images into a folder below `folder`, or finds them there; mapped if they do not fit.

    A run that was killed goes on where it stopped. Processes that want the same images wait for each other.

    Args:
        encoded: the images.
        folder: holds a folder for each source, size and version of the decoder.
        stamp: changes when the source does.
        size: as for `decode_image`.
        memory_gb: the most to hold in memory, in 10^9 bytes.
        workers: processes that decode; None: as many as there are processors.
        max_broken: broken images that are left out.
        fit: as for `decode_image`.

    Raises:
        InputError: as `decode_to_memory`, but that they need not fit.
    """
    whole = folder / cache_key(stamp, size, fit=fit)
    with _locked(folder / f".{whole.name}.lock"):
        if not (whole / MANIFEST).is_file():
            _decode_into(
                whole, encoded, stamp=stamp, size=size, fit=fit, workers=workers, max_broken=max_broken
            )
    decoded = _open_folder(whole, len(encoded))
    refuse_broken(decoded.broken, encoded, max_broken)
    if decoded.pixels.nbytes <= memory_gb * 1e9:
        return Decoded(np.array(decoded.pixels), decoded.digests, decoded.broken)
    return decoded


def cache_key(stamp: str, size: int | None, *, fit: str = "crop") -> str:
    """Name of the folder of one source at one size; another Pillow may decode to other pixels."""
    # What is cropped was kept before there were other fits: its name stays.
    made_of = json.dumps([stamp, size, DECODER, PIL.__version__, *([] if fit == "crop" else [fit])])
    return hashlib.blake2b(made_of.encode(), digest_size=12).hexdigest()


def refuse_broken(broken: dict[int, str], encoded: Encoded, max_broken: int) -> None:
    """Raises InputError, naming the first images, where more than `max_broken` are broken."""
    refuse_lost({encoded.names[row]: reason for row, reason in sorted(broken.items())}, max_broken)


def refuse_lost(lost: Mapping[str, str], max_broken: int) -> None:
    """As `refuse_broken`, with the names of the images themselves: name -> reason."""
    if len(lost) <= max_broken:
        return
    first = "; ".join(f"'{name}': {reason}" for name, reason in islice(lost.items(), 3))
    raise InputError(
        f"{len(lost)} broken or missing images, source.max_broken is {max_broken}: {first}"
        f"{' ...' if len(lost) > 3 else ''}"
    )


def _decode_into(
    whole: Path,
    encoded: Encoded,
    *,
    stamp: str,
    size: int | None,
    fit: str,
    workers: int | None,
    max_broken: int,
) -> None:
    part = whole.with_name(f".{whole.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    shape = common_shape(encoded, size)
    decoded = _open_part(part, len(encoded), shape)
    done = _done_before(part, decoded, chunk_starts(len(encoded), shape))
    with (part / DONE).open("a", encoding="utf8") as log:
        for chunk in _chunks(encoded, done, shape=shape, size=size, fit=fit, workers=workers):
            _take_over(decoded, chunk)
            refuse_broken(decoded.broken, encoded, max_broken)
            for array in (decoded.pixels, decoded.digests):
                assert isinstance(array, np.memmap)
                array.flush()
            log.write(json.dumps(_record(chunk, decoded)) + "\n")
            log.flush()
            os.fsync(log.fileno())
    write_manifest(
        part,
        KIND,
        num_images=len(encoded),
        shape=list(shape),
        stamp=stamp,
        size=size,
        fit=fit,
        pillow=PIL.__version__,
        broken=sorted(decoded.broken.items()),
    )
    part.rename(whole)
    (whole / DONE).unlink()


def _chunks(
    encoded: Encoded,
    done: set[int],
    *,
    shape: tuple[int, int],
    size: int | None,
    fit: str,
    workers: int | None,
) -> Iterator[Chunk]:
    starts = chunk_starts(len(encoded), shape)
    left = [start for start in starts if start not in done]
    # Two chunks are decoded before a process has started.
    processes = num_workers(workers) if len(left) > 2 else 1
    return decode_chunks(
        encoded, starts=left, rows=starts.step, shape=shape, size=size, fit=fit, workers=processes
    )


def _take_over(decoded: Decoded, chunk: Chunk) -> None:
    decoded.pixels[chunk.start : chunk.stop] = chunk.pixels
    decoded.digests[chunk.start : chunk.stop] = chunk.digests
    decoded.broken.update(chunk.broken)


def _open_part(part: Path, num_rows: int, shape: tuple[int, int]) -> Decoded:
    wanted = {PIXELS: (num_rows, *shape, 3), DIGESTS: (num_rows, DIGEST_BYTES)}
    arrays = []
    for name, size in wanted.items():
        found = _mapped(part / name, mode="r+")
        if found is None or found.shape != size or found.dtype != np.uint8:
            (part / DONE).unlink(missing_ok=True)
            found = np.lib.format.open_memmap(part / name, mode="w+", dtype=np.uint8, shape=size)
        arrays.append(found)
    return Decoded(arrays[0], arrays[1], {})


def _done_before(part: Path, decoded: Decoded, starts: range) -> set[int]:
    """First rows of the chunks whose record matches what lies there; their broken rows are added."""
    done: set[int] = set()
    lines = (part / DONE).read_text(encoding="utf8").splitlines() if (part / DONE).is_file() else []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            # The line that a kill cut off.
            continue
        start, stop = record["start"], min(record["start"] + starts.step, starts.stop)
        if start in starts and stop == record["stop"] and record["crc32"] == _crc(start, stop, decoded):
            done.add(start)
            decoded.broken.update({int(row): reason for row, reason in record["broken"]})
    return done


def _record(chunk: Chunk, decoded: Decoded) -> dict[str, Any]:
    crc = _crc(chunk.start, chunk.stop, decoded)
    return {"start": chunk.start, "stop": chunk.stop, "crc32": crc, "broken": sorted(chunk.broken.items())}


def _crc(start: int, stop: int, decoded: Decoded) -> int:
    return zlib.crc32(decoded.digests[start:stop].data, zlib.crc32(decoded.pixels[start:stop].data))


def _open_folder(folder: Path, num_rows: int) -> Decoded:
    manifest = read_manifest(folder, KIND)
    pixels, digests = _mapped(folder / PIXELS, mode="r"), _mapped(folder / DIGESTS, mode="r")
    if (
        pixels is None
        or digests is None
        or not len(pixels) == len(digests) == num_rows == manifest["num_images"]
    ):
        raise InputError(f"{folder}: its files are damaged; delete the folder, it is made anew")
    return Decoded(pixels, np.array(digests), {int(row): reason for row, reason in manifest["broken"]})


def _mapped(path: Path, *, mode: Any) -> np.ndarray | None:
    try:
        found: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found


def _num_bytes(num_rows: int, shape: tuple[int, int]) -> int:
    return 3 * num_rows * shape[0] * shape[1]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        # Released with the process, however it ends.
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

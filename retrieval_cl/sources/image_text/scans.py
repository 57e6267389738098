"""What a scan of streamed images found, kept in a file for later runs."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from retrieval_cl.core.files import new_file

Scan = tuple[UInt8[np.ndarray, "N 16"], dict[int, str]]


def kept_scan(folder: Path, stamp: str, scan: Callable[[], Scan], *, num_images: int) -> Scan:
    """The digests and broken images that `scan` gives: read from `folder`, or found and written there.

    Args:
        folder: holds a file for each source.
        stamp: changes when the source does.
        scan: reads all images.
        num_images: of the source.
    """
    # Another Pillow may know other kinds of images.
    name = hashlib.blake2b(f"{stamp} {PIL.__version__}".encode(), digest_size=12).hexdigest()
    path = folder / f"scan-{name}.npz"
    found = _read(path, num_images)
    if found is None:
        found = scan()
        _write(path, found)
    return found


def _read(path: Path, num_images: int) -> Scan | None:
    """None where there is no such file, or a damaged one, which is made anew."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            digests, rows, reasons = arrays["digests"], arrays["broken"], arrays["reasons"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if digests.shape[:1] != (num_images,) or len(rows) != len(reasons):
        return None
    return digests, dict(zip(rows.tolist(), reasons.tolist(), strict=True))


def _write(path: Path, scan: Scan) -> None:
    digests, broken = scan
    with new_file(path) as part, part.open("wb") as stream:
        np.savez(
            stream,
            digests=digests,
            broken=np.array(list(broken), dtype=np.int64),
            reasons=np.array(list(broken.values()), dtype=np.str_),
        )

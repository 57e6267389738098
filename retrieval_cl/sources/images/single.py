"""One image from one file, as a searcher gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.config import Fit
from retrieval_cl.sources.images.pixels import decode_image


def read_image(path: Path, *, size: int | None = None, fit: Fit = "crop") -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of an image file, upright, red, green, blue.

    Args:
        path: the file.
        size: side in pixels of the square it is fitted to; None: as it is.
        fit: how, as in the settings of a source.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        return decode_image(path, size, fit=fit)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected an image") from None
    except Exception as error:
        # Pillow raises many kinds on broken files.
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: no readable image: {said}") from None

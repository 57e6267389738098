"""Loads the image data set a config names: decoded, split, without copies of test images in train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages, Images
from retrieval_cl.sources.images.cache import Decoded, decode_to_folder, decode_to_memory
from retrieval_cl.sources.images.config import ImageSourceConfig, PixelSettings
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.decode import common_shape
from retrieval_cl.sources.images.digits import TEST_SHARE, read_digits
from retrieval_cl.sources.images.encoded import Encoded, JoinedParts, Part
from retrieval_cl.sources.images.folder import read_folder
from retrieval_cl.sources.images.held_out import split_rows
from retrieval_cl.sources.images.labels import join_labels
from retrieval_cl.sources.images.packed import read_npz
from retrieval_cl.sources.images.placed import PickedImages
from retrieval_cl.sources.images.tables import Columns, read_dataset, read_parquet


def load_images(config: ImageSourceConfig) -> ImageData:
    """Loads a data set: read by its kind, decoded or found decoded, split as the config asks.

    Broken images are left out; `made_by` names them ("broken"), and counts train images that were left out of
    every split because a held-out one has the same pixels ("leaked_train_images").

    Raises:
        InputError: the data is missing or damaged, too many images are broken, or a setting does not fit it.
    """
    parts = READERS[config.kind](config)
    encoded = JoinedParts(parts)
    if not len(encoded):
        raise InputError(f"source.path '{config.path}': no images")
    decoded = decode(config, encoded, stamp=joined_stamp(parts))
    kept = np.setdiff1d(
        np.arange(len(encoded), dtype=np.int64), np.array(sorted(decoded.broken), dtype=np.int64)
    )
    labels, classes = join_labels(parts)
    given = [split for part in parts for split in part.splits or ["train"] * len(part.encoded)]
    splits, leaked = split_rows(
        [given[row] for row in kept],
        decoded.digests[kept],
        # Digits come split, by the permutation that makes accuracies comparable.
        test_share=0.0 if config.kind == "digits" else config.test_share,
        dev_share=0.0 if config.kind == "digits" else config.dev_share,
        seed=config.split_seed,
    )
    return ImageData(
        name=_name(config),
        images=picked(decoded, kept),
        ids=[encoded.names[row] for row in kept],
        labels=None if labels is None else labels[kept],
        classes=classes,
        splits=splits,
        made_by={
            "source": config.kind,
            "path": config.path,
            "broken": {encoded.names[row]: reason for row, reason in sorted(decoded.broken.items())},
            "leaked_train_images": leaked,
            "size": list(decoded.pixels.shape[1:3]),
            **({"warped": config.warped} if config.kind == "digits" else {}),
        },
    )


def first_shape(config: ImageSourceConfig) -> tuple[int, int]:
    """Height and width of the first image that can be decoded, as it is. Raises InputError for none."""
    return common_shape(JoinedParts(READERS[config.kind](config)), None)


def decode(config: PixelSettings, encoded: Encoded, *, stamp: str) -> Decoded:
    """Decodes all images as the settings say: into memory, or into a folder below `cache_dir`.

    Args:
        config: size, fit, and where decoded images are kept.
        encoded: the images.
        stamp: changes when they do.

    Raises:
        InputError: too many are broken, or they do not fit where they are to be kept.
    """
    if config.cache_dir is None:
        return decode_to_memory(
            encoded,
            size=config.size,
            fit=config.fit,
            memory_gb=config.memory_gb,
            workers=config.workers,
            max_broken=config.max_broken,
        )
    return decode_to_folder(
        encoded,
        Path(config.cache_dir).expanduser(),
        stamp=stamp,
        size=config.size,
        fit=config.fit,
        memory_gb=config.memory_gb,
        workers=config.workers,
        max_broken=config.max_broken,
    )


def picked(decoded: Decoded, kept: Int64[np.ndarray, " K"]) -> Images:
    """Decoded images of some rows."""
    images = ArrayImages(decoded.pixels)
    return images if len(kept) == len(images) else PickedImages(images, kept)


def _name(config: ImageSourceConfig) -> str:
    if config.kind == "digits":
        return "digits_warped" if config.warped else "digits"
    return Path(str(config.path)).expanduser().resolve().name.split(".")[0]


def joined_stamp(parts: Sequence[Part]) -> str:
    """Changes when one of the parts does."""
    made_of = [[part.stamp, len(part.encoded)] for part in parts]
    return hashlib.blake2b(json.dumps(made_of).encode(), digest_size=16).hexdigest()


def _read_digits(config: ImageSourceConfig) -> list[Part]:
    share = TEST_SHARE if config.test_share is None else config.test_share
    return read_digits(
        warped=config.warped, split_seed=config.split_seed, test_share=share, dev_share=config.dev_share
    )


def _columns(config: ImageSourceConfig) -> Columns:
    return Columns(config.image_column, config.label_column, config.split_column)


def _path(config: ImageSourceConfig) -> Path:
    assert config.path is not None, "ImageSourceConfig refuses these kinds without a path"
    return Path(config.path).expanduser()


READERS: dict[str, Callable[[ImageSourceConfig], list[Part]]] = {
    "digits": _read_digits,
    "image_folder": lambda config: read_folder(_path(config)),
    "image_npz": lambda config: read_npz(_path(config)),
    "image_parquet": lambda config: read_parquet(_path(config), _columns(config)),
    "image_dataset": lambda config: read_dataset(
        str(config.path), _columns(config), subset=config.subset, revision=config.revision
    ),
}

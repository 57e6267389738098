"""Files of a folder that are named by their split: train.npz, test-00000-of-00002.parquet."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import SPLIT_ALIASES, split_name

SPLITS = ("train", "dev", "test")


def split_files(path: Path, *, suffixes: tuple[str, ...]) -> list[tuple[str | None, Path]]:
    """Split and path of each file in a folder that ends in a suffix; of a single file, None and its path.

    Raises:
        InputError: there is no such file, or one is not named by a split.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        return [(None, path)]
    files = sorted(
        file for file in path.iterdir() if file.name.endswith(suffixes) and not file.name.startswith(".")
    )
    if not files:
        first = suffixes[0]
        raise InputError(
            f"{path}: no {' or '.join(suffixes)} file here; expected e.g. train{first} and test{first}"
        )
    # "train.npz" and a shard such as "train-00000-of-00002.parquet" both belong to "train".
    splits = [split_name(re.split(r"[.\-_]", file.name)[0]) for file in files]
    for split, file in zip(splits, files, strict=True):
        if split not in SPLITS:
            raise InputError(
                f"{file}: the name of a file in a folder starts with its split: {valid_splits()}"
            )
    return list(zip(splits, files, strict=True))


def valid_splits() -> str:
    """The names that a split may have, for messages."""
    return ", ".join([*SPLITS, *SPLIT_ALIASES])

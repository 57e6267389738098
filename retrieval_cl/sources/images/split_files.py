"""Files of a folder that are named by their split: train.npz, test-00000-of-00002.parquet."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import SPLIT_ALIASES, split_name

SPLITS = ("train", "dev", "test")


def split_files(path: Path, *, suffix: str) -> list[tuple[str | None, Path]]:
    """Split and path of each file with the suffix in a folder; of a single file, None and its path.

    Raises:
        InputError: there is no such file, or one is not named by a split.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        return [(None, path)]
    files = sorted(file for file in path.iterdir() if file.suffix == suffix and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no {suffix} file here; expected e.g. train{suffix} and test{suffix}")
    # "train.npz" and a shard such as "train-00000-of-00002.parquet" both belong to "train".
    splits = [split_name(re.split(r"[.\-_]", file.name)[0]) for file in files]
    for split, file in zip(splits, files, strict=True):
        if split not in SPLITS:
            valid = ", ".join([*SPLITS, *SPLIT_ALIASES])
            raise InputError(f"{file}: the name of a file in a folder starts with its split: {valid}")
    return list(zip(splits, files, strict=True))

"""The embedding store on disk: a folder of shards of so many rows each, every one whole or not there.

store/manifest.json                     rows, dim, dtype, fingerprint, rows a shard
store/shard-00000/vectors.npy           memory-mapped; bfloat16 as its bits in uint16
store/shard-00000/keys.npy              a hash of each row's text
store/shard-00000/manifest.json         what these are of; a shard does not know its place
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, new_folder, read_manifest, write_manifest
from retrieval_cl.indexing.vector_files import map_file, to_stored

Dtype = Literal["float16", "bfloat16", "float32"]
DTYPES: dict[Dtype, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
STORE, SHARD = "embedding store", "embedding shard"
VECTORS, KEYS = "vectors.npy", "keys.npy"
SHARD_ROWS = 65_536
_KEY_BYTES = 16


@final
@dataclass(frozen=True)
class Recipe:
    """All that decides a stored vector beside its text, and how many rows stand in a shard.

    Attributes:
        fingerprint: of the encoder, the kind of text and the type it computes in.
        dim: numbers a row.
        dtype: of the stored numbers.
        shard_rows: rows of each shard but the last.
    """

    fingerprint: str
    dim: int
    dtype: Dtype = "float16"
    shard_rows: int = SHARD_ROWS


@final
@dataclass(frozen=True, eq=False)
class Store:
    """An opened store.

    Attributes:
        folder: where it stands.
        recipe: how it was made.
        num_rows: in all shards.
    """

    folder: Path
    recipe: Recipe
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @cached_property
    def shards(self) -> list[Float[Tensor, "R D"]]:
        """Memory-mapped, in order: what `exact.search` takes as passages. Not to be written to."""
        return [map_file(shard_folder(self.folder, number) / VECTORS) for number in range(self._num_shards)]

    def keys(self) -> UInt8[np.ndarray, "N B"]:
        """Of every row, in memory (16 bytes each)."""
        parts = [np.load(shard_folder(self.folder, each) / KEYS) for each in range(self._num_shards)]
        return np.concatenate([np.empty((0, _KEY_BYTES), dtype=np.uint8), *parts])

    @property
    def _num_shards(self) -> int:
        return -(-self.num_rows // self.recipe.shard_rows)


def open_store(folder: Path, *, recipe: Recipe | None = None) -> Store | None:
    """The store, if it was made by this recipe (shard size aside); None where there is none such.

    Raises:
        InputError: the folder is there but is half written, changed, or no store.
    """
    if not folder.exists():
        return None
    manifest = read_manifest(folder, STORE)
    found = Recipe(manifest["fingerprint"], manifest["dim"], manifest["dtype"], manifest["shard_rows"])
    if recipe is not None and made_like(found) != made_like(recipe):
        return None
    store = Store(folder, found, manifest["num_rows"])
    for number, rows in enumerate(shard_ranges(store.num_rows, found.shard_rows)):
        if not is_whole(shard_folder(folder, number), recipe=found, num_rows=len(rows)):
            path = shard_folder(folder, number)
            raise InputError(f"{path}: missing, cut or of another store; remove {folder} and encode anew")
    return store


def shard_folder(folder: Path, number: int) -> Path:
    """Where a shard stands in a store."""
    return folder / f"shard-{number:05d}"


def shard_ranges(num_rows: int, shard_rows: int) -> list[range]:
    """The rows of each shard: a function of the data alone."""
    return [range(start, min(start + shard_rows, num_rows)) for start in range(0, num_rows, shard_rows)]


def row_keys(texts: Sequence[str]) -> UInt8[np.ndarray, "N B"]:
    """16 bytes of each text's SHA-256: equal for equal texts only, for all that can be met."""
    joined = b"".join(
        hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()[:_KEY_BYTES] for text in texts
    )
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(texts), _KEY_BYTES)


def write_shard(
    folder: Path, vectors: Float32[np.ndarray, "R D"], *, keys: UInt8[np.ndarray, "R B"], recipe: Recipe
) -> None:
    """Rounds vectors to the store's dtype and writes them, whole or not at all.

    Raises:
        InputError: a number is too large for the dtype.
    """
    stored = torch.from_numpy(vectors).to(DTYPES[recipe.dtype])
    if not bool(stored.isfinite().all()):
        raise InputError(f"{folder}: a vector is not finite in {recipe.dtype}; store them as float32")
    with new_folder(folder) as part:
        np.save(part / VECTORS, to_stored(stored), allow_pickle=False)
        np.save(part / KEYS, keys, allow_pickle=False)
        write_manifest(
            part,
            SHARD,
            **made_like(recipe),
            num_rows=len(vectors),
            keys=_hash(keys),
            bytes=(part / VECTORS).stat().st_size,
        )


def link_shard(source: Path, target: Path) -> None:
    """Gives a whole shard a second place without a copy, or with one where the disk knows no links."""
    with new_folder(target) as part:
        for name in (VECTORS, KEYS, MANIFEST):
            try:
                os.link(source / name, part / name)
            except OSError:
                shutil.copyfile(source / name, part / name)


def is_whole(
    folder: Path, *, recipe: Recipe, num_rows: int, keys: UInt8[np.ndarray, "R B"] | None = None
) -> bool:
    """Whether a shard stands there, made by this recipe and (where they are given) of these rows' texts."""
    if not all((folder / name).is_file() for name in (MANIFEST, KEYS, VECTORS)):
        return False
    manifest = read_manifest(folder, SHARD)
    expected = made_like(recipe) | {"num_rows": num_rows, "bytes": (folder / VECTORS).stat().st_size}
    if keys is not None:
        expected["keys"] = _hash(keys)
    return all(manifest.get(name) == value for name, value in expected.items())


def made_like(recipe: Recipe) -> dict[str, str | int]:
    """What must agree for a row to be of use: all but the number of rows a shard."""
    return {"fingerprint": recipe.fingerprint, "dim": recipe.dim, "dtype": recipe.dtype}


def _hash(keys: UInt8[np.ndarray, "R B"]) -> str:
    return hashlib.sha256(keys.tobytes()).hexdigest()

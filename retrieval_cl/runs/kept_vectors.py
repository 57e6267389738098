"""A folder that keeps vectors between runs: passages and queries in a store each, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST
from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.encoders.text import Kind, TextEncoder
from retrieval_cl.indexing.fill import Progress
from retrieval_cl.indexing.shards import Store
from retrieval_cl.indexing.vector_files import nameless_map
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.stored import store_texts

_NAMES: dict[Kind, str] = {"passage": "passages", "query": "queries"}
# Rows that a kill can lose: half a minute of a transformer on a CPU.
SHARD_ROWS = 8192


@final
@dataclass(frozen=True)
class KeptVectors:
    """Gives vectors of texts as float32, memory-mapped, and encodes only what is not in the folder.

    A vector's last bits may depend on what it is embedded with, and that is not the same with a store as
    without; a static encoder's do not.

    Attributes:
        folder: holds `passages/` and `queries/`, each a store as `embed` makes them.
        say: gets a line on each.
    """

    folder: Path
    say: Say = lambda line: None

    def vectors(
        self, texts: Sequence[str], *, encoder: TextEncoder, kind: Kind, progress: Progress | None = None
    ) -> Float32[np.ndarray, "N D"]:
        """Unit rows of the texts; several ranks encode by shards, and all must call with the same.

        Raises:
            InputError: something else stands in the store's place, or it was changed or cut.
        """
        folder = self.folder / _NAMES[kind]
        self.folder.mkdir(parents=True, exist_ok=True)
        store, done = store_texts(
            folder,
            texts,
            encoder=encoder,
            kind=kind,
            dtype="float32",
            shard_rows=SHARD_ROWS,
            device=encoder.device,
            progress=progress,
        )
        share = "" if num_ranks() == 1 else ", of the share of this process"
        self.say(f"{folder}: {done.encoded:,} embedded, {done.copied + done.kept:,} kept{share}")
        return as_one_map(store)


def check_store(folder: Path | None, *, output: Path | None = None) -> None:
    """Refuses a place for stores that cannot be one; better before than after encoding.

    Args:
        folder: None for none.
        output: a folder that will be replaced; None for none.

    Raises:
        InputError: a file or something else of ours stands there, or it lies in the output.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--store {folder}: a file stands there; name a folder")
    if (folder / MANIFEST).exists():
        raise InputError(
            f"--store {folder}: is a store or an index itself; name a folder that will hold "
            f"{' and '.join(_NAMES.values())}"
        )
    if output is not None and output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"--store {folder}: lies in {output}, which will be replaced; name another folder")


def as_one_map(store: Store) -> Float32[np.ndarray, "N D"]:
    """All rows of a store of float32 in one array: the shard's own map, or of several a copy on its disk."""
    assert store.recipe.dtype == "float32", store.recipe
    if len(store.shards) == 1:
        only: Float32[np.ndarray, "N D"] = store.shards[0].numpy()
        return only
    out, start = nameless_map((len(store), store.recipe.dim), folder=store.folder.parent), 0
    for shard in store.shards:
        out[start : start + len(shard)] = shard.numpy()
        start += len(shard)
    return out

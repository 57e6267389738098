"""The rows of the store that stood there before: found by the hash of their text, copied bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from retrieval_cl.indexing.rows import Rows
from retrieval_cl.indexing.shards import Store, shard_folder


@final
class OldRows:
    """Finds a text's vector in an old store, if there is one."""

    def __init__(self, store: Store | None) -> None:
        """Reads the keys; the vectors stay on disk."""
        self._store = store if store is not None and len(store) else None
        if self._store is not None:
            keys = as_one(self._store.keys())
            self._order = np.argsort(keys, kind="stable")
            self._keys = keys[self._order]

    def shard(self, number: int) -> Path | None:
        """The folder of the old shard of this number, whether it is there or not; None without a store."""
        return None if self._store is None else shard_folder(self._store.folder, number)

    def find(self, keys: UInt8[np.ndarray, "R B"]) -> Int64[np.ndarray, " R"]:
        """The row of each key, the lowest of equal ones; -1 where it is not there."""
        if self._store is None:
            return np.full(len(keys), -1, dtype=np.int64)
        wanted = as_one(keys)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[places] == wanted, self._order[places], -1)

    def take(self, rows: Int64[np.ndarray, " M"]) -> Float32[np.ndarray, "M D"]:
        """Vectors by row; rounded again to the store's dtype they are the same bits."""
        assert self._store is not None
        found: Float32[np.ndarray, "M D"] = Rows(self._store.shards, name="old vectors").take(rows).numpy()
        return found


def as_one(keys: UInt8[np.ndarray, "R B"]) -> np.ndarray:
    """One value a row that compares as its bytes do."""
    return np.ascontiguousarray(keys).view(f"S{keys.shape[1]}")[:, 0]

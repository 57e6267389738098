"""The table of negatives: what the trainer reads in one round, memory-mapped from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, Int32, Int64, Num

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, hash_file, new_folder, read_manifest, write_manifest

SOURCES = ("dense", "lexical", "previous", "random", "given")
KIND = "negative_table"
_DTYPES = {"queries": "int64", "rows": "int64", "scores": "float32", "ranks": "int32", "sources": "int8"}


@dataclass(frozen=True, eq=False)
class NegativeTable:
    """The mined negatives of each query, hardest first, random ones last.

    Attributes:
        round: the round of mining that made it; 0 is mined before any training.
        queries: query rows, distinct.
        rows: passage rows; -1 is an empty place, never an index.
        scores: the score each was chosen by (the reranker's where one was used); -inf in empty places.
        ranks: place in its source's list before any filter, 0 = best; -1 in empty places and for random ones.
        sources: provenance, a place in `SOURCES`; -1 in empty places.
    """

    round: int
    queries: Int64[np.ndarray, " N"]
    rows: Int64[np.ndarray, "N n"]
    scores: Float32[np.ndarray, "N n"]
    ranks: Int32[np.ndarray, "N n"]
    sources: Int8[np.ndarray, "N n"]

    def __post_init__(self) -> None:
        assert self.rows.shape == self.scores.shape == self.ranks.shape == self.sources.shape
        assert self.queries.shape == self.rows.shape[:1]
        for name, dtype in _DTYPES.items():
            assert getattr(self, name).dtype == dtype, (name, getattr(self, name).dtype)

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def num_negatives(self) -> int:
        """Places per query."""
        return int(self.rows.shape[1])

    def row_of(self, queries: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The table's row of each query; -1 where the query is not in the table."""
        if not len(self):
            return np.full(queries.shape, -1, dtype=np.int64)
        order, ascending = self._sorted_queries
        place = np.minimum(np.searchsorted(ascending, queries), len(ascending) - 1)
        return np.where(ascending[place] == queries, order[place], -1)

    def save(self, folder: Path, **made_by: Any) -> None:
        """Writes the folder, whole or not at all; `made_by` (JSON values) goes into its manifest."""
        with new_folder(folder) as part:
            for name in _DTYPES:
                np.save(part / f"{name}.npy", getattr(self, name), allow_pickle=False)
            write_manifest(
                part,
                KIND,
                round=self.round,
                num_queries=len(self),
                num_negatives=self.num_negatives,
                source_names=list(SOURCES),
                sha256={name: hash_file(part / f"{name}.npy") for name in _DTYPES},
                made_by=made_by,
            )

    @classmethod
    def load(cls, folder: Path) -> NegativeTable:
        """Memory-maps a folder written by `save`.

        Raises:
            InputError: it is missing, half written, of another kind, or a file differs from its hash.
        """
        manifest = read_manifest(folder, KIND)
        wanted = {"round", "num_queries", "num_negatives", "source_names", "sha256"}
        if missing := sorted(wanted - manifest.keys()):
            raise InputError(f"{folder / MANIFEST}: no {', '.join(missing)}; mine again")
        if manifest["source_names"] != list(SOURCES):
            raise InputError(
                f"{folder / MANIFEST}: source_names {manifest['source_names']}, not {list(SOURCES)}"
            )
        arrays = {name: _map(folder / f"{name}.npy", sha256=manifest["sha256"].get(name)) for name in _DTYPES}
        return cls(round=manifest["round"], **arrays)

    @cached_property
    def _sorted_queries(self) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
        order = np.argsort(self.queries, kind="stable")
        return order, self.queries[order]


def _map(path: Path, *, sha256: str | None) -> Num[np.ndarray, ...]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the table of negatives is incomplete, mine again")
    if hash_file(path) != sha256:
        raise InputError(f"{path}: its SHA-256 is not the one in {MANIFEST}; mine again")
    mapped: Num[np.ndarray, ...] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped

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
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.names import SOURCES

__all__ = ["KIND", "SOURCES", "NegativeTable"]

KIND = "negative_table"
_DTYPES = {"queries": "int64", "rows": "int64", "scores": "float32", "ranks": "int32", "sources": "int8"}
_TAUGHT = {"teacher": "float32", "positives": "int64", "positive_teacher": "float32"}


@dataclass(frozen=True, eq=False)
class NegativeTable:
    """The mined negatives of each query, hardest first, random ones last.

    Attributes:
        round: the round of mining that made it; 0 is mined before any training.
        queries: query rows, distinct.
        rows: passage rows; -1 is an empty place, never an index.
        scores: inner products of the vectors, 0 where the data itself named the negative; -inf in empty
            places. Where no reranker was used, they were chosen by these.
        ranks: place in its source's list before any filter, 0 = best; -1 in empty places and for random ones.
        sources: provenance, a place in `SOURCES`; -1 in empty places.
        teacher: the reranker's scores, by which they were chosen; -inf in empty places. None where no
            reranker was used, as are the next two.
        positives: passage rows known to match each query; -1 pads.
        positive_teacher: the reranker's score of each of them; -inf pads.
    """

    round: int
    queries: Int64[np.ndarray, " N"]
    rows: Int64[np.ndarray, "N n"]
    scores: Float32[np.ndarray, "N n"]
    ranks: Int32[np.ndarray, "N n"]
    sources: Int8[np.ndarray, "N n"]
    teacher: Float32[np.ndarray, "N n"] | None = None
    positives: Int64[np.ndarray, "N P"] | None = None
    positive_teacher: Float32[np.ndarray, "N P"] | None = None

    def __post_init__(self) -> None:
        assert self.rows.shape == self.scores.shape == self.ranks.shape == self.sources.shape
        assert self.queries.shape == self.rows.shape[:1]
        for name, dtype in self._dtypes.items():
            assert getattr(self, name).dtype == dtype, (name, getattr(self, name).dtype)
        if self.teacher is not None:
            assert self.positives is not None and self.positive_teacher is not None
            assert self.teacher.shape == self.rows.shape
            assert self.positives.shape == self.positive_teacher.shape
        else:
            assert self.positives is None and self.positive_teacher is None

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

    def taught(self, positives: Ragged) -> Float32[np.ndarray, " V"]:
        """The reranker's score of each of `positives.values`, positives of the query of the table's row i.

        Raises:
            InputError: no reranker was used, or it has not scored one of them.
        """
        if self.positives is None or self.positive_teacher is None:
            raise InputError("the table of negatives holds no teacher's scores; mine with mining.reranker")
        lines = positives.rows
        found = self.positives[lines] == positives.values[:, None]
        if len(unknown := np.flatnonzero(~found.any(axis=1))):
            query, passage = self.queries[lines[unknown[0]]], positives.values[unknown[0]]
            raise InputError(
                f"the table of negatives holds no teacher's score of query row {query}, passage row {passage}"
            )
        scores: Float32[np.ndarray, " V"] = self.positive_teacher[lines, found.argmax(axis=1)]
        return scores

    def save(self, folder: Path, **made_by: Any) -> None:
        """Writes the folder, whole or not at all; `made_by` (JSON values) goes into its manifest."""
        with new_folder(folder) as part:
            for name in self._dtypes:
                np.save(part / f"{name}.npy", getattr(self, name), allow_pickle=False)
            write_manifest(
                part,
                KIND,
                round=self.round,
                num_queries=len(self),
                num_negatives=self.num_negatives,
                source_names=list(SOURCES),
                sha256={name: hash_file(part / f"{name}.npy") for name in self._dtypes},
                made_by=made_by,
            )

    @classmethod
    def load(cls, folder: Path) -> NegativeTable:
        """Memory-maps a folder written by `save`.

        Raises:
            InputError: it is missing, half written, of another kind, or a file differs from its hash.
        """
        manifest = read_manifest(folder, KIND)
        keys = {"round", "num_queries", "num_negatives", "source_names", "sha256"}
        if missing := sorted(keys - manifest.keys()):
            raise InputError(f"{folder / MANIFEST}: no {', '.join(missing)}; mine again")
        names = manifest["source_names"]
        # An older table knows fewer sources; the places of those it knows are the same.
        if not names or names != list(SOURCES[: len(names)]):
            raise InputError(f"{folder / MANIFEST}: source_names {names}, not {list(SOURCES)}")
        hashes = manifest["sha256"]
        wanted = {*_DTYPES, *(_TAUGHT if "teacher" in hashes else ())}
        arrays = {name: _map(folder / f"{name}.npy", sha256=hashes.get(name)) for name in sorted(wanted)}
        return cls(round=manifest["round"], **arrays)

    @property
    def _dtypes(self) -> dict[str, str]:
        return _DTYPES if self.teacher is None else _DTYPES | _TAUGHT

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

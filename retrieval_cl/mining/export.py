"""Writes a table of negatives as texts for sentence-transformers: triplets or tuples, JSONL or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.table import NegativeTable

_CHUNK = 4096
_Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Exported:
    """How many rows were written, and how many (query, positive) pairs gave none for want of negatives."""

    rows: int
    pairs_left_out: int


def write_triplets(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"],
) -> Exported:
    """Writes one row for each query, positive and negative, with `scores` = [positive's, negative's].

    Args:
        path: ends in .jsonl or .parquet.
        table: what was mined.
        queries: text of every query row.
        passages: text of every passage row.
        positives: passage rows that match the query of row i of the table.
        positive_scores: score of each of `positives.values`, of the same kind as the table's.

    Raises:
        InputError: the path has another ending.
    """
    write = _writer(path)
    pairs = _Pairs(table, queries, passages, positives, positive_scores)
    columns = _with_scores(["query", "positive", "negative"], width=2)
    written = write(path, columns, map(pairs.triplets, pairs.chunks()))
    empty = np.count_nonzero(table.rows >= 0, axis=1) == 0
    return Exported(written, int(positives.counts[empty].sum()))


def write_tuples(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"],
) -> Exported:
    """Writes one row for each query and positive, with `negative_1` to `negative_n` and all n + 1 `scores`.

    A query with an empty place among its n negatives gives no row and is counted: a column holds texts only.
    Arguments and errors are those of `write_triplets`.
    """
    write = _writer(path)
    pairs = _Pairs(table, queries, passages, positives, positive_scores)
    names = ["query", "positive", *(f"negative_{number + 1}" for number in range(table.num_negatives))]
    columns = _with_scores(names, width=table.num_negatives + 1)
    written = write(path, columns, map(pairs.tuples, pairs.chunks()))
    return Exported(written, len(positives.values) - written)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The (query, positive) pairs of a table, and the rows they give."""

    table: NegativeTable
    queries: Sequence[str]
    passages: Sequence[str]
    positives: Ragged
    positive_scores: Float32[np.ndarray, " V"]

    def __post_init__(self) -> None:
        assert len(self.positives) == len(self.table)
        assert self.positive_scores.shape == self.positives.values.shape

    def chunks(self) -> Iterator[Int64[np.ndarray, " P"]]:
        for start in range(0, len(self.positives.values), _CHUNK):
            yield np.arange(start, min(start + _CHUNK, len(self.positives.values)), dtype=np.int64)

    def triplets(self, pairs: Int64[np.ndarray, " P"]) -> _Columns:
        lines = self.positives.rows[pairs]
        pair, place = np.nonzero(self.table.rows[lines] >= 0)
        lines, pairs = lines[pair], pairs[pair]
        scores = np.stack([self.positive_scores[pairs], self.table.scores[lines, place]], axis=1)
        return {
            "query": _texts(self.queries, self.table.queries[lines]),
            "positive": _texts(self.passages, self.positives.values[pairs]),
            "negative": _texts(self.passages, self.table.rows[lines, place]),
            "scores": scores.tolist(),
        }

    def tuples(self, pairs: Int64[np.ndarray, " P"]) -> _Columns:
        lines = self.positives.rows[pairs]
        full = (self.table.rows[lines] >= 0).all(axis=1)
        lines, pairs = lines[full], pairs[full]
        scores = np.concatenate([self.positive_scores[pairs, None], self.table.scores[lines]], axis=1)
        negatives = self.table.rows[lines].T
        return {
            "query": _texts(self.queries, self.table.queries[lines]),
            "positive": _texts(self.passages, self.positives.values[pairs]),
            **{
                f"negative_{number + 1}": _texts(self.passages, rows) for number, rows in enumerate(negatives)
            },
            "scores": scores.tolist(),
        }


def _texts(texts: Sequence[str], rows: Int64[np.ndarray, " R"]) -> list[str]:
    return [texts[row] for row in rows.tolist()]


def _with_scores(names: list[str], *, width: int) -> pa.Schema:
    return pa.schema([*((name, pa.string()) for name in names), ("scores", pa.list_(pa.float32(), width))])


def _writer(path: Path) -> Callable[[Path, pa.Schema, Iterable[_Columns]], int]:
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise InputError(f"{path}: cannot write '{path.suffix}'; the endings are {', '.join(writers)}")
    return writers[path.suffix]


def _write_jsonl(path: Path, schema: pa.Schema, chunks: Iterable[_Columns]) -> int:
    written = 0
    with new_file(path) as part, part.open("w", encoding="utf8") as stream:
        for chunk in chunks:
            for values in zip(*(chunk[name] for name in schema.names), strict=True):
                stream.write(
                    json.dumps(dict(zip(schema.names, values, strict=True)), ensure_ascii=False) + "\n"
                )
                written += 1
    return written


def _write_parquet(path: Path, schema: pa.Schema, chunks: Iterable[_Columns]) -> int:
    written = 0
    with new_file(path) as part, pq.ParquetWriter(part, schema) as stream:
        for chunk in chunks:
            rows = pa.Table.from_pydict(chunk, schema=schema)
            stream.write_table(rows)
            written += rows.num_rows
    return written

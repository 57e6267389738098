"""Writes a table of negatives as texts for sentence-transformers and FlagEmbedding: JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.export_files import writer_of
from retrieval_cl.mining.export_rows import Texts
from retrieval_cl.mining.table import NegativeTable

Shape = Literal["triplets", "tuples", "pairs", "lists", "flagembedding"]
Scores = Literal["vectors", "teacher", "none"]
"""vectors: cosines; teacher: the reranker's; none: no scores, and labels where a shape has them."""


@dataclass(frozen=True)
class Exported:
    """How many rows were written, and how many (query, positive) pairs gave none for want of negatives."""

    rows: int
    pairs_left_out: int


class Writer(Protocol):
    """What each shape is written by; arguments and errors are those of `write_triplets`."""

    def __call__(
        self,
        path: Path,
        table: NegativeTable,
        *,
        queries: Sequence[str],
        passages: Sequence[str],
        positives: Ragged,
        positive_scores: Float32[np.ndarray, " V"] | None,
        scores: Scores = "vectors",
    ) -> Exported:
        """Writes the file."""
        ...


def write_triplets(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes one row for each query, positive and negative, with `scores` = [positive's, negative's].

    Args:
        path: ends in .jsonl or .parquet.
        table: what was mined.
        queries: text of every query row.
        passages: text of every passage row.
        positives: passage rows that match the query of row i of the table.
        positive_scores: the vectors' score of each of `positives.values`; read for scores "vectors" only.
        scores: which are written.

    Raises:
        InputError: the path has another ending, or the table has no teacher's scores and they are wanted.
    """
    texts = _texts(table, queries, passages, positives, positive_scores, scores)
    columns = _columns({"query": pa.string(), "positive": pa.string(), "negative": pa.string()})
    written = writer_of(path)(path, _with_scores(columns, texts, width=2), map(texts.triplets, texts.pairs()))
    return Exported(written, _without_negatives(table, positives))


def write_tuples(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes one row for each query and positive, with `negative_1` to `negative_n` and all n + 1 `scores`.

    A query with an empty place among its n negatives gives no row and is counted: a column holds texts only.
    """
    texts = _texts(table, queries, passages, positives, positive_scores, scores)
    names = ["query", "positive", *(f"negative_{number + 1}" for number in range(table.num_negatives))]
    columns = _columns(dict.fromkeys(names, pa.string()))
    columns = _with_scores(columns, texts, width=table.num_negatives + 1)
    written = writer_of(path)(path, columns, map(texts.tuples, texts.pairs()))
    return Exported(written, len(positives.values) - written)


def write_pairs(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes one row for each query and passage: its positives with `label` 1, its negatives with 0.

    With scores, `score` stands in place of `label`.
    """
    texts = _texts(table, queries, passages, positives, positive_scores, scores)
    label = ("label", pa.int64()) if scores == "none" else ("score", pa.float32())
    columns = _columns({"query": pa.string(), "passage": pa.string(), label[0]: label[1]})
    return Exported(writer_of(path)(path, columns, map(texts.labelled_pairs, texts.lines())), 0)


def write_lists(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes one row for each query and positive: `passages` = the positive, then the negatives; `labels`.

    With scores, `scores` stand in place of `labels`.
    """
    texts = _texts(table, queries, passages, positives, positive_scores, scores)
    label = ("labels", pa.int64()) if scores == "none" else ("scores", pa.float32())
    columns = _columns({"query": pa.string(), "passages": _list(pa.string()), label[0]: _list(label[1])})
    written = writer_of(path)(path, columns, map(texts.labelled_lists, texts.pairs()))
    return Exported(written, _without_negatives(table, positives))


def write_flagembedding(
    path: Path,
    table: NegativeTable,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes one row for each query: lists `pos`, `neg`, and with scores `pos_scores`, `neg_scores`.

    A query without a negative gives no row: FlagEmbedding draws from `neg` and cannot draw from nothing.
    """
    texts = _texts(table, queries, passages, positives, positive_scores, scores)
    types = {"query": pa.string(), "pos": _list(pa.string()), "neg": _list(pa.string())}
    if scores != "none":
        types |= dict.fromkeys(("pos_scores", "neg_scores"), _list(pa.float32()))
    written = writer_of(path)(path, _columns(types), map(texts.query_lists, texts.lines()))
    return Exported(written, _without_negatives(table, positives))


WRITERS: Mapping[Shape, Writer] = {
    "triplets": write_triplets,
    "tuples": write_tuples,
    "pairs": write_pairs,
    "lists": write_lists,
    "flagembedding": write_flagembedding,
}


def _texts(
    table: NegativeTable,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores,
) -> Texts:
    chosen: dict[Scores, Callable[[], tuple[np.ndarray | None, np.ndarray | None]]] = {
        "none": lambda: (None, None),
        "vectors": lambda: (positive_scores, table.scores),
        "teacher": lambda: (table.taught(positives), table.teacher),
    }
    if scores == "vectors" and positive_scores is None:
        raise InputError("the export of scores 'vectors' needs the positives' scores")
    of_positives, of_negatives = chosen[scores]()
    return Texts(table, queries, passages, positives, of_positives, of_negatives)


def _without_negatives(table: NegativeTable, positives: Ragged) -> int:
    return int(positives.counts[(table.rows < 0).all(axis=1)].sum())


def _columns(types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(types.items()))


def _with_scores(columns: pa.Schema, texts: Texts, *, width: int) -> pa.Schema:
    if texts.scores is None:
        return columns
    return columns.append(pa.field("scores", pa.list_(pa.float32(), width)))


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(kind)

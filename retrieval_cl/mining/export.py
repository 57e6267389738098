"""Writes a table of negatives as texts for sentence-transformers and FlagEmbedding: JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.export_files import Columns, writer_of
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


@dataclass(frozen=True, eq=False)
class Form:
    """What a shape writes: its columns, its rows in chunks, and the pairs that give none."""

    columns: pa.Schema
    rows: Iterable[Columns]
    pairs_left_out: int


def write_texts(
    path: Path,
    table: NegativeTable,
    *,
    shape: Shape,
    queries: Sequence[str],
    passages: Sequence[str],
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores = "vectors",
) -> Exported:
    """Writes the table as texts, whole or not at all; `FORMS` tells the columns of each shape.

    Args:
        path: ends in .jsonl or .parquet.
        table: what was mined.
        shape: of the rows.
        queries: text of every query row.
        passages: text of every passage row.
        positives: passage rows that match the query of row i of the table.
        positive_scores: the vectors' score of each of `positives.values`; read for scores "vectors" only.
        scores: which are written.

    Raises:
        InputError: the path has another ending, or the table has no teacher's scores and they are wanted.
    """
    write = writer_of(path)
    of_positives, of_negatives = _scores(table, positives, positive_scores, scores)
    form = FORMS[shape](Texts(table, queries, passages, positives, of_positives, of_negatives))
    return Exported(write(path, form.columns, form.rows), form.pairs_left_out)


def triplets(texts: Texts) -> Form:
    """One row for each query, positive and negative, with `scores` = [positive's, negative's]."""
    columns = _columns({"query": pa.string(), "positive": pa.string(), "negative": pa.string()})
    columns = _with_scores(columns, texts, width=2)
    return Form(columns, map(texts.triplets, texts.pairs()), _left_out(texts, _has_none(texts)))


def tuples(texts: Texts) -> Form:
    """One row for each query and positive, with `negative_1` to `negative_n` and all n + 1 `scores`.

    A query with an empty place among its n negatives gives no row: a column holds texts only.
    """
    num_negatives = texts.table.num_negatives
    names = ["query", "positive", *(f"negative_{number + 1}" for number in range(num_negatives))]
    columns = _with_scores(_columns(dict.fromkeys(names, pa.string())), texts, width=num_negatives + 1)
    lacks_one = np.asarray((texts.table.rows < 0).any(axis=1))
    return Form(columns, map(texts.tuples, texts.pairs()), _left_out(texts, lacks_one))


def labelled_pairs(texts: Texts) -> Form:
    """One row for each query and passage: its positives with `label` 1, its negatives with 0, or `score`."""
    label = {"label": pa.int64()} if texts.scores is None else {"score": pa.float32()}
    columns = _columns({"query": pa.string(), "passage": pa.string(), **label})
    return Form(columns, map(texts.labelled_pairs, texts.lines()), 0)


def labelled_lists(texts: Texts) -> Form:
    """One row for each query and positive: `passages` = it and the negatives; `labels`, or `scores`."""
    label = {"labels": pa.int64()} if texts.scores is None else {"scores": pa.float32()}
    types = {"passages": pa.string(), **label}
    columns = _columns({"query": pa.string(), **{name: pa.list_(kind) for name, kind in types.items()}})
    return Form(columns, map(texts.labelled_lists, texts.pairs()), _left_out(texts, _has_none(texts)))


def flagembedding(texts: Texts) -> Form:
    """One row for each query: lists `pos`, `neg`, and with scores `pos_scores`, `neg_scores`.

    A query without a negative gives no row: FlagEmbedding draws from `neg` and cannot draw from nothing.
    """
    types = dict.fromkeys(("pos", "neg"), pa.string())
    if texts.scores is not None:
        types |= dict.fromkeys(("pos_scores", "neg_scores"), pa.float32())
    columns = _columns({"query": pa.string(), **{name: pa.list_(kind) for name, kind in types.items()}})
    return Form(columns, map(texts.query_lists, texts.lines()), _left_out(texts, _has_none(texts)))


FORMS: Mapping[Shape, Callable[[Texts], Form]] = {
    "triplets": triplets,
    "tuples": tuples,
    "pairs": labelled_pairs,
    "lists": labelled_lists,
    "flagembedding": flagembedding,
}


def _scores(
    table: NegativeTable,
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"] | None,
    scores: Scores,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Scores of the positives and of the table's places."""
    if scores == "none":
        return None, None
    if scores == "teacher":
        return table.taught(positives), table.teacher
    if positive_scores is None:
        raise InputError("the export of scores 'vectors' needs the positives' scores")
    return positive_scores, table.scores


def _has_none(texts: Texts) -> np.ndarray:
    return np.asarray((texts.table.rows < 0).all(axis=1))


def _left_out(texts: Texts, lines: np.ndarray) -> int:
    return int(texts.positives.counts[lines].sum())


def _columns(types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(types.items()))


def _with_scores(columns: pa.Schema, texts: Texts, *, width: int) -> pa.Schema:
    if texts.scores is None:
        return columns
    return columns.append(pa.field("scores", pa.list_(pa.float32(), width)))

"""What a table of negatives says about its queries as rows of texts, in each of the shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.export_files import Columns
from retrieval_cl.mining.table import NegativeTable

CHUNK = 4096


@final
@dataclass(frozen=True, eq=False)
class Texts:
    """A table beside its texts, and the scores to write.

    Attributes:
        table: what was mined.
        queries: text of every query row.
        passages: text of every passage row.
        positives: passage rows that match the query of row i of the table.
        positive_scores: of each of `positives.values`; None: no scores are written.
        scores: of each place of the table, of the same kind; None as well then.
    """

    table: NegativeTable
    queries: Sequence[str]
    passages: Sequence[str]
    positives: Ragged
    positive_scores: Float32[np.ndarray, " V"] | None
    scores: Float32[np.ndarray, "N n"] | None

    def __post_init__(self) -> None:
        assert len(self.positives) == len(self.table)
        assert (self.scores is None) == (self.positive_scores is None)
        assert self.positive_scores is None or self.positive_scores.shape == self.positives.values.shape

    def pairs(self) -> Iterator[Int64[np.ndarray, " P"]]:
        """Numbers of the (query, positive) pairs, in chunks."""
        return _chunks(len(self.positives.values))

    def lines(self) -> Iterator[Int64[np.ndarray, " L"]]:
        """Rows of the table, in chunks."""
        return _chunks(len(self.table))

    def triplets(self, pairs: Int64[np.ndarray, " P"]) -> Columns:
        """One row for each pair and negative."""
        lines = self.positives.rows[pairs]
        pair, place = np.nonzero(self.table.rows[lines] >= 0)
        lines, pairs = lines[pair], pairs[pair]
        columns: Columns = {
            "query": _texts(self.queries, self.table.queries[lines]),
            "positive": _texts(self.passages, self.positives.values[pairs]),
            "negative": _texts(self.passages, self.table.rows[lines, place]),
        }
        if self.scores is not None and self.positive_scores is not None:
            scores = np.stack([self.positive_scores[pairs], self.scores[lines, place]], axis=1)
            columns |= {"scores": scores.tolist()}
        return columns

    def tuples(self, pairs: Int64[np.ndarray, " P"]) -> Columns:
        """One row for each pair whose query has no empty place."""
        lines = self.positives.rows[pairs]
        full = (self.table.rows[lines] >= 0).all(axis=1)
        lines, pairs = lines[full], pairs[full]
        negatives = self.table.rows[lines].T
        columns: Columns = {
            "query": _texts(self.queries, self.table.queries[lines]),
            "positive": _texts(self.passages, self.positives.values[pairs]),
            **{f"negative_{place + 1}": _texts(self.passages, rows) for place, rows in enumerate(negatives)},
        }
        if self.scores is not None and self.positive_scores is not None:
            scores = np.concatenate([self.positive_scores[pairs, None], self.scores[lines]], axis=1)
            columns |= {"scores": scores.tolist()}
        return columns

    def labelled_pairs(self, lines: Int64[np.ndarray, " L"]) -> Columns:
        """One row for each positive, then each negative, of a query."""
        marked = self._marked(lines)
        owner = np.repeat(lines, np.diff(marked.offsets))
        name = "label" if self.scores is None else "score"
        return {
            "query": _texts(self.queries, self.table.queries[owner]),
            "passage": _texts(self.passages, marked.rows),
            name: (marked.labels if self.scores is None else marked.scores).tolist(),
        }

    def labelled_lists(self, pairs: Int64[np.ndarray, " P"]) -> Columns:
        """One row for each pair: the positive, then the negatives of the query; none for want of those."""
        lines = self.positives.rows[pairs]
        pairs = pairs[(self.table.rows[lines] >= 0).any(axis=1)]
        lines = self.positives.rows[pairs]
        marked = self._marked(lines, pairs=pairs)
        name = "labels" if self.scores is None else "scores"
        return {
            "query": _texts(self.queries, self.table.queries[lines]),
            "passages": marked.cut(_texts(self.passages, marked.rows)),
            name: marked.cut((marked.labels if self.scores is None else marked.scores).tolist()),
        }

    def query_lists(self, lines: Int64[np.ndarray, " L"]) -> Columns:
        """One row for each query with a negative: all its positives, all its negatives."""
        lines = lines[(self.table.rows[lines] >= 0).any(axis=1)]
        marked = self._marked(lines)
        is_positive = marked.labels == 1
        positives, negatives = marked.only(is_positive), marked.only(~is_positive)
        columns: Columns = {
            "query": _texts(self.queries, self.table.queries[lines]),
            "pos": positives.cut(_texts(self.passages, positives.rows)),
            "neg": negatives.cut(_texts(self.passages, negatives.rows)),
        }
        if self.scores is not None:
            columns["pos_scores"] = positives.cut(positives.scores.tolist())
            columns["neg_scores"] = negatives.cut(negatives.scores.tolist())
        return columns

    def _marked(
        self, lines: Int64[np.ndarray, " L"], *, pairs: Int64[np.ndarray, " L"] | None = None
    ) -> _Marked:
        """Positives (all of a line, or the one of the pair), then negatives, of each line."""
        numbers = Ragged(self.positives.offsets, np.arange(len(self.positives.values), dtype=np.int64))
        chosen = (
            numbers.take(lines) if pairs is None else Ragged(np.arange(len(lines) + 1, dtype=np.int64), pairs)
        )
        line, place = np.nonzero(self.table.rows[lines] >= 0)
        rows = np.concatenate([self.positives.values[chosen.values], self.table.rows[lines[line], place]])
        labels = np.repeat([1, 0], [len(chosen.values), len(line)])
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if self.scores is not None and self.positive_scores is not None:
            scores = np.concatenate([self.positive_scores[chosen.values], self.scores[lines[line], place]])
        owner = np.concatenate([chosen.rows, line])
        order = np.argsort(owner, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(lines)))])
        return _Marked(offsets, rows[order], labels[order], scores[order])


@final
@dataclass(frozen=True, eq=False)
class _Marked:
    """Passages of some lines one after the other, with label (1: a positive) and score (NaN: none)."""

    offsets: Int64[np.ndarray, " L1"]
    rows: Int64[np.ndarray, " R"]
    labels: Int64[np.ndarray, " R"]
    scores: Float32[np.ndarray, " R"]

    def cut(self, values: list[Any]) -> list[list[Any]]:
        ends = self.offsets.tolist()
        return [values[start:end] for start, end in pairwise(ends)]

    def only(self, chosen: np.ndarray) -> _Marked:
        before = np.concatenate([[0], np.cumsum(chosen)])
        return _Marked(before[self.offsets], self.rows[chosen], self.labels[chosen], self.scores[chosen])


def _chunks(count: int) -> Iterator[Int64[np.ndarray, " C"]]:
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count), dtype=np.int64)


def _texts(texts: Sequence[str], rows: Int64[np.ndarray, " R"]) -> list[str]:
    return [texts[row] for row in rows.tolist()]

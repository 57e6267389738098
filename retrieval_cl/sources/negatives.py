"""The table of negatives as a training source reads it: some of an anchor's, drawn at random each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError


@runtime_checkable
class Negatives(Protocol):
    """A table of negatives, fixed for a round.

    A table of mined negatives has more to it; this is what training needs of it.
    """

    @property
    def round(self) -> int:
        """The round it was made for."""

    @property
    def queries(self) -> Int64[np.ndarray, " N"]:
        """Query row of each line, distinct."""

    @property
    def rows(self) -> Int64[np.ndarray, "N n"]:
        """Passage rows of the negatives of each line; -1 where there is none."""


@final
@dataclass(frozen=True)
class Kinds:
    """What a table is about, for messages: `query` (one) brings `candidate`s, `whole` is a row of a batch."""

    query: str
    candidate: str
    whole: str


@final
@dataclass(frozen=True, eq=False)
class NegativeLines:
    """Rows of negatives, and the line of each query in them.

    Attributes:
        rows: candidate rows, -1 where there is none; may be memory-mapped.
        lines: of each query row of the data; -1 where it has none.
    """

    rows: Int64[np.ndarray, "N n"]
    lines: Int64[np.ndarray, " Q"]

    @classmethod
    def of(
        cls, table: Negatives, *, count: int, num_queries: int, num_candidates: int, kinds: Kinds
    ) -> NegativeLines:
        """Looks up the lines of a table.

        Args:
            table: of the round.
            count: negatives that will be drawn for a query.
            num_queries: rows of the data that may have a line.
            num_candidates: rows of the data that may stand in one.
            kinds: words for messages.

        Raises:
            InputError: the table has too few columns or is of other data.
        """
        columns = table.rows.shape[1]
        if columns < count:
            raise InputError(
                f"{count} negatives {kinds.whole}, but the table of negatives has {columns} columns"
            )
        last_query, last_row = table.queries.max(initial=-1), table.rows.max(initial=-1)
        if last_query >= num_queries or last_row >= num_candidates:
            raise InputError(
                f"the table of negatives is of other data: it names {kinds.query} row {last_query} and "
                f"{kinds.candidate} row {last_row}, here are {num_queries} and {num_candidates}"
            )
        lines = np.full(num_queries, -1, dtype=np.int64)
        lines[table.queries] = np.arange(len(table.queries))
        return cls(table.rows, lines)

    def draw(
        self, queries: Int64[np.ndarray, " B"], count: int, generator: np.random.Generator
    ) -> Int64[np.ndarray, "B count"]:
        """Draws `count` different columns for each query; one that holds -1 only after all that do not."""
        lines = self.lines[queries]
        there = lines >= 0
        rows = np.full((len(queries), self.rows.shape[1]), -1, dtype=np.int64)
        rows[there] = self.rows[lines[there]]
        keys = generator.random(rows.shape) + (rows < 0)
        return np.take_along_axis(rows, np.argsort(keys, axis=1, kind="stable")[:, :count], axis=1)

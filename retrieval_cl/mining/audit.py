"""The audit of a table of negatives: what lies in it, what judgements say of it, what an older one had."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.rules import contains, item_keys
from retrieval_cl.mining.table import SOURCES, NegativeTable

MOST_USED = 10


@dataclass(frozen=True)
class SourceUse:
    """What one source gave: negatives, and the queries that have at least one of them."""

    negatives: int
    queries: int


@dataclass(frozen=True)
class TableFacts:
    """What lies in a table.

    Attributes:
        per_query: number of negatives -> queries that have so many.
        per_source: source -> what it gave.
        equal_within: negatives that are a copy of an earlier one of their query; the rules leave none.
        passages: distinct passages among all negatives.
        items: distinct items; copies of one text are one item.
        most_used: (passage row, queries it is a negative of), the most used first.
    """

    per_query: dict[int, int]
    per_source: dict[str, SourceUse]
    equal_within: int
    passages: int
    items: int
    most_used: list[tuple[int, int]]

    @property
    def negatives(self) -> int:
        """All of them."""
        return sum(number * queries for number, queries in self.per_query.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = dataclasses.asdict(self)
        return values | {"per_query": {str(number): queries for number, queries in self.per_query.items()}}


@dataclass(frozen=True)
class JudgedFacts:
    """What the judgements of an evaluation split say of the negatives; nothing is ever removed by them.

    Attributes:
        negatives: places whose passage answers some query of the split.
        passages: distinct such passages.
        same_query: places whose passage answers a query of the split with the text of the place's own query:
            false negatives for certain.
    """

    negatives: int
    passages: int
    same_query: int


@dataclass(frozen=True)
class TableDifference:
    """How a table differs from an older one, over the queries that both have.

    Attributes:
        queries: in both.
        only_new: queries that the older one lacks.
        only_old: queries that the newer one lacks.
        shared: negatives that a query has in both.
        added: negatives that it has in the newer one alone.
        gone: negatives that it had in the older one alone.
    """

    queries: int
    only_new: int
    only_old: int
    shared: int
    added: int
    gone: int

    @property
    def shared_share(self) -> float:
        """Shared negatives among those of the newer table; 0 where it has none."""
        return self.shared / max(1, self.shared + self.added)


def count_table(table: NegativeTable, *, groups: Int64[np.ndarray, " M"]) -> TableFacts:
    """Counts what lies in a table; passages with one number in `groups` are the same item."""
    lines, places = np.nonzero(table.rows >= 0)
    rows, sources = table.rows[lines, places], table.sources[lines, places]
    sizes, queries = np.unique(np.count_nonzero(table.rows >= 0, axis=1), return_counts=True)
    passages, uses = np.unique(rows, return_counts=True)
    most = np.lexsort((passages, -uses))[:MOST_USED]
    per_source = {
        name: SourceUse(int(np.count_nonzero(sources == number)), len(np.unique(lines[sources == number])))
        for number, name in enumerate(SOURCES)
        if (sources == number).any()
    }
    return TableFacts(
        per_query=dict(zip(sizes.tolist(), queries.tolist(), strict=True)),
        per_source=per_source,
        equal_within=len(lines) - len(np.unique(lines * (int(groups.max(initial=0)) + 1) + groups[rows])),
        passages=len(passages),
        items=len(np.unique(groups[passages])),
        most_used=list(zip(passages[most].tolist(), uses[most].tolist(), strict=True)),
    )


def count_judged(
    table: NegativeTable, *, relevant: Int64[np.ndarray, " R"], same_query: Ragged
) -> JudgedFacts:
    """Counts the negatives that a split's judgements call right answers.

    Args:
        table: what was mined.
        relevant: passages that answer any query of the split.
        same_query: passages that answer a query of the split whose text is that of the table's row i.
    """
    lines, places = np.nonzero(table.rows >= 0)
    rows = table.rows[lines, places]
    inside = np.isin(rows, relevant)
    return JudgedFacts(
        negatives=int(np.count_nonzero(inside)),
        passages=len(np.unique(rows[inside])),
        same_query=int(np.count_nonzero(is_known(lines, rows, known=same_query))),
    )


def compare_tables(new: NegativeTable, old: NegativeTable) -> TableDifference:
    """Compares two tables by the same query and passage rows."""
    both = np.intersect1d(new.queries, old.queries)
    width = int(max(new.rows.max(initial=0), old.rows.max(initial=0))) + 1
    ours, theirs = _pairs(new, both, width=width), _pairs(old, both, width=width)
    shared = len(np.intersect1d(ours, theirs))
    return TableDifference(
        queries=len(both),
        only_new=len(new) - len(both),
        only_old=len(old) - len(both),
        shared=shared,
        added=len(ours) - shared,
        gone=len(theirs) - shared,
    )


def is_known(
    lines: Int64[np.ndarray, " P"], rows: Int64[np.ndarray, " P"], *, known: Ragged
) -> Bool[np.ndarray, " P"]:
    """Which passages stand in row `lines[i]` of `known`."""
    items = np.arange(int(max(rows.max(initial=0), known.values.max(initial=0))) + 1, dtype=np.int64)
    keys = np.sort(item_keys(known.rows, known.values, groups=items))
    return contains(keys, item_keys(lines, rows, groups=items))


def _pairs(table: NegativeTable, queries: Int64[np.ndarray, " B"], *, width: int) -> Int64[np.ndarray, " P"]:
    # A number for each pair of one of these queries and a negative of it, each pair once.
    rows = table.rows[table.row_of(queries)]
    lines, places = np.nonzero(rows >= 0)
    return np.unique(queries[lines] * width + rows[lines, places])

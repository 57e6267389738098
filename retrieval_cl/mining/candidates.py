"""Where candidates come from: the dense search and further lists, side by side, scored by one rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.rules import Candidates
from retrieval_cl.mining.scorers import Scorer
from retrieval_cl.mining.table import SOURCES, NegativeTable

Search = Callable[[Float32[np.ndarray, "Q D"], int], Hits]
"""(query vectors, k) -> the k best passages of each query."""


def find(
    query_vectors: Float32[np.ndarray, "Q D"], search: Search, *, depth: int, extra: Mapping[str, Hits]
) -> Candidates:
    """The `depth` best passages of each query by `search`, then the further lists; these are not scored yet.

    Args:
        query_vectors: of the queries.
        search: the dense search.
        depth: passages asked of it.
        extra: source name -> a further list for the same queries; its scores are not used.
    """
    dense = Candidates.from_hits(search(query_vectors, depth), source=SOURCES.index("dense"))
    further = [
        Candidates.from_hits(hits, source=SOURCES.index(name)).unscored() for name, hits in extra.items()
    ]
    return side_by_side([dense, *further])


def side_by_side(lists: Sequence[Candidates]) -> Candidates:
    """The columns of all lists; ranks stay those within each list."""
    if len(lists) == 1:
        return lists[0]
    return Candidates(
        rows=np.concatenate([one.rows for one in lists], axis=1),
        scores=np.concatenate([one.scores for one in lists], axis=1),
        ranks=np.concatenate([one.ranks for one in lists], axis=1),
        sources=np.concatenate([one.sources for one in lists], axis=1),
        kept=np.concatenate([one.kept for one in lists], axis=1),
    )


def score_kept(candidates: Candidates, scorer: Scorer, *, numbers: Int64[np.ndarray, " Q"]) -> Candidates:
    """Scores the kept candidates that have no score yet.

    Args:
        candidates: row i belongs to query i.
        scorer: scores pairs of (query number, passage row).
        numbers: the query number of row i.
    """
    line, column = np.nonzero(candidates.kept & np.isnan(candidates.scores))
    if not len(line):
        return candidates
    scores = candidates.scores.copy()
    scores[line, column] = scorer(numbers[line], candidates.rows[line, column])
    return replace(candidates, scores=scores)


def previous_hits(table: NegativeTable, queries: Int64[np.ndarray, " Q"]) -> Hits:
    """The negatives of an earlier round as a list of candidates; what was drawn at random there is none.

    Args:
        table: of the earlier round, by the same rows.
        queries: query rows; one that the table lacks has no hit.
    """
    lines = table.row_of(queries)
    there = lines >= 0
    rows = np.full((len(queries), table.num_negatives), -1, dtype=np.int64)
    sources = table.sources[lines[there]]
    rows[there] = np.where(sources == SOURCES.index("random"), -1, table.rows[lines[there]])
    # -inf, not the old scores: candidates are scored by the current vectors.
    return Hits(np.full(rows.shape, -np.inf, dtype=np.float32), rows)


def check_extra(extra: Mapping[str, Hits], *, num_queries: int, num_passages: int) -> None:
    """Checks the further lists.

    Raises:
        InputError: an unknown source, another number of queries, or a row outside the corpus.
    """
    for name, hits in extra.items():
        if name not in SOURCES or name == "dense":
            raise InputError(
                f"extra candidates from '{name}': no such source; the sources are {', '.join(SOURCES[1:])}"
            )
        if len(hits.rows) != num_queries:
            raise InputError(
                f"extra candidates from '{name}': {len(hits.rows)} rows for {num_queries} queries"
            )
        low, high = int(hits.rows.min(initial=0)), int(hits.rows.max(initial=-1))
        if low < -1 or high >= num_passages:
            raise InputError(
                f"extra candidates from '{name}': passage rows {low} to {high}; "
                f"valid are -1 (none) to {num_passages - 1}"
            )

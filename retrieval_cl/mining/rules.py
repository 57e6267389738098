"""Which candidates may be negatives: pure functions over arrays, each returns the mask still kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged


@dataclass(frozen=True, eq=False)
class Candidates:
    """What was found for each query, in columns; a rule only ever clears places of `kept`.

    Attributes:
        rows: passage rows; -1 is no candidate, never an index.
        scores: NaN where not yet scored.
        ranks: place in the list of its source before any filter, 0 = best.
        sources: provenance, a place in `table.SOURCES`.
        kept: still a possible negative; False where `rows` is -1.
    """

    rows: Int64[np.ndarray, "Q K"]
    scores: Float32[np.ndarray, "Q K"]
    ranks: Int32[np.ndarray, "Q K"]
    sources: Int8[np.ndarray, "Q K"]
    kept: Bool[np.ndarray, "Q K"]

    @classmethod
    def from_hits(cls, hits: Hits, *, source: int) -> Candidates:
        """All hits, kept; the rank is the column."""
        shape = hits.rows.shape
        ranks = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        sources = np.broadcast_to(np.int8(source), shape)
        return cls(hits.rows, hits.scores, ranks, sources, hits.rows >= 0)

    def take(self, lines: Int64[np.ndarray, " R"]) -> Candidates:
        """Those of the given queries, in the given order."""
        return Candidates(
            self.rows[lines], self.scores[lines], self.ranks[lines], self.sources[lines], self.kept[lines]
        )

    def unscored(self) -> Candidates:
        """The same candidates without their scores."""
        return replace(self, scores=np.full(self.rows.shape, np.nan, dtype=np.float32))


Rule = Callable[[Candidates], Bool[np.ndarray, "Q K"]]


def apply_rules(
    candidates: Candidates, rules: Mapping[str, Rule]
) -> tuple[Candidates, dict[str, Int64[np.ndarray, " Q"]]]:
    """Applies the rules in order; also returns, by query, how many each removed that were kept until then."""
    removed = {}
    for name, rule in rules.items():
        kept = rule(candidates)
        removed[name] = np.count_nonzero(candidates.kept, axis=1) - np.count_nonzero(kept, axis=1)
        candidates = replace(candidates, kept=kept)
    return candidates, removed


def drop_known(
    candidates: Candidates, *, positives: Ragged, groups: Int64[np.ndarray, " M"]
) -> Bool[np.ndarray, "Q K"]:
    """Drops every candidate that is a positive of its query, or equal to one.

    Args:
        candidates: row i belongs to query i.
        positives: passage rows known to match query i.
        groups: group of each passage, from 0 to M - 1; passages of one group are the same item or text.
    """
    known = np.sort(item_keys(positives.rows, positives.values, groups=groups))
    unknown = ~contains(known, _candidate_keys(candidates, groups=groups))
    kept: Bool[np.ndarray, "Q K"] = candidates.kept & unknown
    return kept


def drop_duplicates(candidates: Candidates, *, groups: Int64[np.ndarray, " M"]) -> Bool[np.ndarray, "Q K"]:
    """Keeps of equal candidates of one query only the best-ranked, the first column of those of one rank.

    The best-ranked stands for all of them whether or not a rule has dropped it: a copy never returns for it.
    """
    there = candidates.rows >= 0
    group = np.where(there, groups[np.where(there, candidates.rows, 0)], -1)
    order = np.lexsort((candidates.ranks, group), axis=-1)
    group = np.take_along_axis(group, order, axis=1)
    first = np.ones(group.shape, dtype=bool)
    first[:, 1:] = group[:, 1:] != group[:, :-1]
    best = np.empty_like(first)
    np.put_along_axis(best, order, first, axis=1)
    return candidates.kept & best


def keep_ranks(candidates: Candidates, *, rank_min: int, rank_max: int) -> Bool[np.ndarray, "Q K"]:
    """Keeps the ranks from `rank_min` up to but without `rank_max`, counted before any filter."""
    return candidates.kept & (candidates.ranks >= rank_min) & (candidates.ranks < rank_max)


def keep_at_most(candidates: Candidates, *, score: float) -> Bool[np.ndarray, "Q K"]:
    """Keeps scores up to and with `score`."""
    return candidates.kept & (candidates.scores <= np.float32(score))


def keep_at_least(candidates: Candidates, *, score: float) -> Bool[np.ndarray, "Q K"]:
    """Keeps scores from `score` on."""
    return candidates.kept & (candidates.scores >= np.float32(score))


def keep_below_positive(
    candidates: Candidates, *, positive: Float32[np.ndarray, " Q"], margin: float
) -> Bool[np.ndarray, "Q K"]:
    """Keeps scores of at most `positive - margin`, the absolute margin."""
    limit = positive.astype(np.float64) - margin
    return candidates.kept & (candidates.scores <= limit[:, None])


def keep_below_fraction(
    candidates: Candidates, *, positive: Float32[np.ndarray, " Q"], relative_margin: float
) -> Bool[np.ndarray, "Q K"]:
    """Keeps scores of at most `positive - relative_margin * |positive|`.

    With 0.05 and positive scores this is "TopK-PercPos" at 95 % of NV-Retriever (Moreira et al. 2024, arXiv
    2407.15831). Their limit `0.95 * positive` lies above a negative score; this one always lies below.
    """
    positive64 = positive.astype(np.float64)
    limit = positive64 - relative_margin * np.abs(positive64)
    return candidates.kept & (candidates.scores <= limit[:, None])


def weakest_positive(scores: Float32[np.ndarray, " V"], positives: Ragged) -> Float32[np.ndarray, " Q"]:
    """The least of the `scores` of each query's positives, aligned with `positives.values`; no row empty."""
    weakest: Float32[np.ndarray, " Q"] = np.minimum.reduceat(scores, positives.offsets[:-1])
    return weakest


def strongest_positive(scores: Float32[np.ndarray, " V"], positives: Ragged) -> Float32[np.ndarray, " Q"]:
    """The greatest score among the positives of each query, as in `weakest_positive`."""
    strongest: Float32[np.ndarray, " Q"] = np.maximum.reduceat(scores, positives.offsets[:-1])
    return strongest


def item_keys(
    queries: Int64[np.ndarray, "*#S"], rows: Int64[np.ndarray, "*#S"], *, groups: Int64[np.ndarray, " M"]
) -> Int64[np.ndarray, ...]:
    """One number for each pair (query number, group of the passage), for look-up in a sorted list."""
    keys: Int64[np.ndarray, ...] = queries * len(groups) + groups[rows]
    return keys


def contains(sorted_keys: Int64[np.ndarray, " V"], keys: Int64[np.ndarray, "*S"]) -> Bool[np.ndarray, "*S"]:
    """Which of `keys` stand in the ascending `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(keys.shape, dtype=bool)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    found: Bool[np.ndarray, "*S"] = sorted_keys[place] == keys
    return found


def _candidate_keys(candidates: Candidates, *, groups: Int64[np.ndarray, " M"]) -> Int64[np.ndarray, "Q K"]:
    # Places without a candidate get a key that no pair has.
    queries = np.arange(len(candidates.rows), dtype=np.int64)[:, None]
    there = candidates.rows >= 0
    return np.where(there, item_keys(queries, np.where(there, candidates.rows, 0), groups=groups), -1)

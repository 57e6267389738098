"""The miner: search in chunks of queries, refuse by the rules, draw, and fill the table of negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32, Float64, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import filler, rules, sampling
from retrieval_cl.mining.candidates import Search, check_extra, find, score_kept
from retrieval_cl.mining.checks import check_relations, check_vectors
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts, Tally
from retrieval_cl.mining.rules import Candidates, Rule, apply_rules
from retrieval_cl.mining.scorers import Reranker, Scorer, reranker_scorer, vector_scorer
from retrieval_cl.mining.searchers import build_search
from retrieval_cl.mining.table import SOURCES, NegativeTable


def mine(
    query_vectors: Float32[np.ndarray, "N D"],
    passage_vectors: Float32[np.ndarray, "M _"],
    *,
    queries: Int64[np.ndarray, " N"],
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
    config: MiningConfig,
    seed: int,
    round: int,
    extra: Mapping[str, Hits] | None = None,
    reranker: Reranker | None = None,
    search: Search | None = None,
    chunk_size: int = 8192,
    reranker_batch: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> tuple[NegativeTable, MiningCounts]:
    """Mines hard negatives. The result is the same for any `chunk_size`.

    Args:
        query_vectors: unit rows.
        passage_vectors: unit rows of the same dimension; may be memory-mapped.
        queries: query row of each query vector, distinct; chance depends on it, not on its place.
        positives: passage rows known to match query vector i (not query row i), at least one each.
        groups: passages with the same number are the same item or text; never each other's negatives.
        config: depth, rules and sampling.
        seed: of the run.
        round: of mining; goes into the table and into all chance.
        extra: source name of `SOURCES` -> a further list of candidates, row i for query vector i. Its ranks
            count for the rank window, its scores do not: all candidates are scored alike.
        reranker: its scores of positives and candidates take the place of the vectors' for thresholds,
            sampling and the table. It sees the candidates that the other rules leave.
        search: takes the place of the search that `config.factory` names.
        chunk_size: queries searched at once; bounds the memory at about 100 bytes a query and candidate.
        reranker_batch: pairs scored in one call of the reranker.
        progress: called with the number of queries done.

    Raises:
        InputError: a vector that is zero or not finite (with its row), a query without a positive, rows
            outside the corpus, shapes that do not fit, or a reranker without a finite score for a pair.
    """
    extra = {} if extra is None else extra
    check_vectors(query_vectors, name="query vector")
    check_vectors(passage_vectors, name="passage vector")
    check_relations(query_vectors, passage_vectors, queries=queries, positives=positives, groups=groups)
    check_extra(extra, num_queries=len(queries), num_passages=len(passage_vectors))
    job = _Job(
        queries=queries,
        positives=positives,
        groups=np.unique(groups, return_inverse=True)[1].astype(np.int64, copy=False),
        config=config,
        seed=seed,
        round=round,
        scorer=vector_scorer(query_vectors, passage_vectors)
        if reranker is None
        else reranker_scorer(reranker, queries, batch=reranker_batch),
    )
    search = build_search(passage_vectors, factory=config.factory) if search is None else search
    depth = min(config.depth, len(passage_vectors))
    tally, parts = Tally(), []
    for start in range(0, len(queries), chunk_size):
        numbers = np.arange(start, min(start + chunk_size, len(queries)), dtype=np.int64)
        lists = {name: Hits(hits.scores[numbers], hits.rows[numbers]) for name, hits in extra.items()}
        found = find(query_vectors[numbers], search, depth=depth, extra=lists)
        left, removed = job.refuse(found if reranker is None else found.unscored(), numbers)
        tally.add(left, removed, num_negatives=config.num_negatives)
        parts.append(job.choose(left, numbers))
        if progress is not None:
            progress(len(numbers))
    table = _join(parts, round=round)
    return table, tally.counts(table)


@dataclass(frozen=True, eq=False)
class _Job:
    """What stays the same over the chunks of one call."""

    queries: Int64[np.ndarray, " N"]
    positives: Ragged
    groups: Int64[np.ndarray, " M"]
    config: MiningConfig
    seed: int
    round: int
    scorer: Scorer

    def refuse(
        self, found: Candidates, numbers: Int64[np.ndarray, " Q"]
    ) -> tuple[Candidates, dict[str, int]]:
        """Applies the rules on items, scores what they leave, then applies those on scores."""
        positives = self.positives.take(numbers)
        left, removed = apply_rules(found, self._item_rules(positives))
        left = score_kept(left, self.scorer, numbers=numbers)
        left, removed_by_score = apply_rules(left, self._score_rules(positives, numbers))
        return left, removed | removed_by_score

    def choose(self, left: Candidates, numbers: Int64[np.ndarray, " Q"]) -> NegativeTable:
        """Draws the negatives of these queries, and random ones for those missing if so configured."""
        columns = sampling.draw(left, self._keys(left, self.queries[numbers]), num=self.config.num_negatives)
        table = _pick(left, columns, queries=self.queries[numbers], round=self.round)
        return table if self.config.shortage == "fewer" else self._fill(table, left, numbers)

    def _item_rules(self, positives: Ragged) -> Mapping[str, Rule]:
        first, last = self.config.rank_min, self.config.last_rank
        return {
            "known": partial(rules.drop_known, positives=positives, groups=self.groups),
            "duplicate": partial(rules.drop_duplicates, groups=self.groups),
            "rank_window": partial(rules.keep_ranks, rank_min=first, rank_max=last),
        }

    def _score_rules(self, positives: Ragged, numbers: Int64[np.ndarray, " Q"]) -> Mapping[str, Rule]:
        config = self.config
        chosen: dict[str, Rule] = {}
        if config.max_score is not None:
            chosen["max_score"] = partial(rules.keep_at_most, score=config.max_score)
        if config.min_score is not None:
            chosen["min_score"] = partial(rules.keep_at_least, score=config.min_score)
        if config.margin is None and config.relative_margin is None:
            return chosen
        scores = self.scorer(numbers[positives.rows], positives.values)
        pick = rules.weakest_positive if config.positive == "weakest" else rules.strongest_positive
        positive = pick(scores, positives)
        if config.margin is not None:
            chosen["margin"] = partial(rules.keep_below_positive, positive=positive, margin=config.margin)
        if config.relative_margin is not None:
            chosen["relative_margin"] = partial(
                rules.keep_below_fraction, positive=positive, relative_margin=config.relative_margin
            )
        return chosen

    def _keys(self, left: Candidates, queries: Int64[np.ndarray, " Q"]) -> Float64[np.ndarray, "Q K"]:
        if self.config.sampling == "top":
            return sampling.top_keys(left)
        if self.config.sampling == "uniform":
            return sampling.uniform_keys(left, queries, seed=self.seed, round=self.round)
        assert self.config.temperature is not None
        return sampling.weighted_keys(
            left, queries, seed=self.seed, round=self.round, temperature=self.config.temperature
        )

    def _fill(
        self, table: NegativeTable, left: Candidates, numbers: Int64[np.ndarray, " Q"]
    ) -> NegativeTable:
        missing = np.count_nonzero(table.rows < 0, axis=1)
        drawn = filler.draw_random(
            missing,
            table.queries,
            candidates=left,
            positives=self.positives.take(numbers),
            groups=self.groups,
            seed=self.seed,
            round=self.round,
        )
        line, place = np.nonzero(drawn >= 0)
        passages = drawn[line, place]
        # The empty places of a row are its last.
        place = table.num_negatives - missing[line] + place
        table.rows[line, place] = passages
        table.scores[line, place] = self.scorer(numbers[line], passages)
        table.sources[line, place] = SOURCES.index("random")
        return table


def _pick(
    left: Candidates, columns: Int64[np.ndarray, "Q n"], *, queries: Int64[np.ndarray, " Q"], round: int
) -> NegativeTable:
    there = columns >= 0
    rows, scores, ranks, sources = (
        np.take_along_axis(values, np.where(there, columns, 0), axis=1)
        for values in (left.rows, left.scores, left.ranks, left.sources)
    )
    return NegativeTable(
        round=round,
        queries=queries,
        rows=np.where(there, rows, -1),
        scores=np.where(there, scores, np.float32(-np.inf)),
        ranks=np.where(there, ranks, np.int32(-1)),
        sources=np.where(there, sources, np.int8(-1)),
    )


def _join(parts: list[NegativeTable], *, round: int) -> NegativeTable:
    return NegativeTable(
        round=round,
        queries=np.concatenate([part.queries for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        ranks=np.concatenate([part.ranks for part in parts]),
        sources=np.concatenate([part.sources for part in parts]),
    )

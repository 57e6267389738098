"""The miner: search in chunks of queries, refuse by the rules, draw, and fill the table of negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.candidates import Search, check_extra, find
from retrieval_cl.mining.checks import check_given, check_relations, check_vectors
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts, Tally
from retrieval_cl.mining.job import Drawn, Job
from retrieval_cl.mining.near import Barred, Near, near_text, near_vectors
from retrieval_cl.mining.quotas import check_quotas, shorten
from retrieval_cl.mining.scorers import Reranker, reranker_scorer, vector_scorer
from retrieval_cl.mining.searchers import build_search
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.mining.table import NegativeTable


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
    shingles: ShingleSets | None = None,
    barred: Mapping[str, Barred] | None = None,
    chunk_size: int = 8192,
    reranker_batch: int = 65_536,
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
        reranker: its scores of positives and candidates take the place of the vectors' for thresholds and
            sampling, and go into the table as the teacher's. It sees the candidates that the other rules
            leave.
        search: takes the place of the search that `config.factory` names.
        shingles: of the passages' texts, for `config.near_text`.
        barred: name -> a further rule, on query numbers (0 to N - 1) and passage rows; for what the caller
            knows of queries beside their vectors.
        chunk_size: queries searched at once; bounds the memory at about 100 bytes a query and candidate.
        reranker_batch: pairs scored in one call of the reranker.
        progress: called with the number of queries done.

    Raises:
        InputError: a vector that is zero or not finite (with its row), a query without a positive, rows
            outside the corpus, shapes that do not fit, a reranker without a finite score for a pair, or a
            setting (quota, near_text, reranker) without what it needs here, or the other way round.
    """
    extra = {} if extra is None else extra
    check_vectors(query_vectors, name="query vector")
    check_vectors(passage_vectors, name="passage vector")
    check_relations(query_vectors, passage_vectors, queries=queries, positives=positives, groups=groups)
    check_extra(extra, num_queries=len(queries), num_passages=len(passage_vectors))
    check_quotas(config.source_quotas, extra=extra)
    check_given(config, extra=extra, reranker=reranker, shingles=shingles, num_passages=len(passage_vectors))
    job = Job(
        queries=queries,
        positives=positives,
        groups=np.unique(groups, return_inverse=True)[1].astype(np.int64, copy=False),
        config=config,
        seed=seed,
        round=round,
        scorer=vector_scorer(query_vectors, passage_vectors),
        teacher=None if reranker is None else reranker_scorer(reranker, queries, batch=reranker_batch),
        near=_near_rules(passage_vectors, config, shingles),
        barred={} if barred is None else barred,
    )
    mining = _Round(
        job,
        search=build_search(passage_vectors, config, query_vectors=query_vectors, seed=seed)
        if search is None
        else search,
        vectors=query_vectors,
        extra=shorten(extra, config.source_quotas),
        num_passages=len(passage_vectors),
        chunk_size=chunk_size,
        tally=Tally(),
    )
    for start in range(0, len(queries), chunk_size):
        numbers = np.arange(start, min(start + chunk_size, len(queries)), dtype=np.int64)
        mining.mine(numbers, depth=config.depth, rank_max=config.last_rank)
        if progress is not None:
            progress(len(numbers))
    table = mining.table()
    return table, mining.tally.counts(table, quotas=config.source_quotas)


@dataclass(frozen=True, eq=False)
class _Round:
    """Finds and draws for chunks of queries; where wanted, again and deeper for those that stay short."""

    job: Job
    search: Search
    vectors: Float32[np.ndarray, "N D"]
    extra: Mapping[str, Hits]
    num_passages: int
    chunk_size: int
    tally: Tally
    parts: list[tuple[Int64[np.ndarray, " Q"], NegativeTable]] = field(default_factory=list)

    def mine(self, numbers: Int64[np.ndarray, " Q"], *, depth: int, rank_max: int) -> None:
        """Appends the tables of these queries to `parts`, in any order of queries."""
        job = self.job
        extra = {name: Hits(hits.scores[numbers], hits.rows[numbers]) for name, hits in self.extra.items()}
        found = find(self.vectors[numbers], self.search, depth=min(depth, self.num_passages), extra=extra)
        drawn = job.draw(found, numbers, rank_max=rank_max)
        again = drawn.short & (rank_max < min(job.config.widest or 0, self.num_passages))
        if not again.any():
            self._settle(drawn, numbers)
            return
        settled, deeper = np.flatnonzero(~again), min(2 * depth, job.config.widest or 0)
        self._settle(drawn.take(settled, positives=job.positives.take(numbers)), numbers[settled])
        self.tally.widened += int(np.count_nonzero(again)) if depth == job.config.depth else 0
        del found, drawn, extra
        # Deeper lists, shorter chunks: about the same memory.
        size = max(1, self.chunk_size * job.config.depth // deeper)
        for start in range(0, len(short := numbers[again]), size):
            self.mine(short[start : start + size], depth=deeper, rank_max=deeper)

    def _settle(self, drawn: Drawn, numbers: Int64[np.ndarray, " Q"]) -> None:
        wanted = self.job.config.num_negatives - self.job.config.num_random
        self.tally.add(
            drawn.left, drawn.removed, drawn=np.count_nonzero(drawn.columns >= 0, axis=1), wanted=wanted
        )
        self.parts.append((numbers, self.job.fill(drawn, numbers)))

    def table(self) -> NegativeTable:
        """All parts, in the order of the query numbers."""
        order = np.argsort(np.concatenate([numbers for numbers, _ in self.parts]))
        tables = [table for _, table in self.parts]
        names = [
            one.name
            for one in fields(NegativeTable)
            if one.name != "round" and getattr(tables[0], one.name) is not None
        ]
        columns = {name: np.concatenate([getattr(table, name) for table in tables])[order] for name in names}
        return NegativeTable(round=self.job.round, **columns)


def _near_rules(
    passage_vectors: Float32[np.ndarray, "M D"], config: MiningConfig, shingles: ShingleSets | None
) -> dict[str, Near]:
    chosen: dict[str, Near] = {}
    if shingles is not None:
        assert config.near_text is not None
        chosen["near_text"] = near_text(shingles, threshold=config.near_text)
    if config.near_vector is not None:
        chosen["near_vector"] = near_vectors(passage_vectors, cosine=config.near_vector)
    return chosen

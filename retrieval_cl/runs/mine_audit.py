"""Audits a table that was mined and estimates its false-negative rate; for texts and bare vectors alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.audit import (
    JudgedFacts,
    TableDifference,
    TableFacts,
    compare_tables,
    count_judged,
    count_table,
)
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.audit_pairs import (
    NearPairs,
    Similarity,
    Suspects,
    by_score,
    by_similarity,
    near_within,
)
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.estimate import (
    HeldBack,
    HeldBackRates,
    held_back_rates,
    hold_back,
    sweep_held_back,
    sweep_teacher,
    teacher_rate,
)
from retrieval_cl.mining.near_queries import NearQueries, QueryPairs, with_other_answers
from retrieval_cl.mining.rates import MARGINS, Rate, SweepPoint, recommend
from retrieval_cl.mining.rules import strongest_positive, weakest_positive
from retrieval_cl.mining.table import NegativeTable

SUSPECTS = 12
MineHeldBack = Callable[[HeldBack, float | None], tuple[NegativeTable, MiningCounts]]
"""(what is held back, relative margin) -> the table of those queries, in their order, and its counts."""


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A table and what it is judged by.

    Attributes:
        table: what was mined.
        positives: passage rows known to match row i of the table.
        positive_scores: the vectors' score of each of `positives.values`.
        groups: passages with one number are the same item.
        similarity: of two passages.
        near: similarity from which on they are nearly equal.
        measure: what the similarity is, in words.
        query_pairs: rows of the table whose queries are nearly equal.
    """

    table: NegativeTable
    positives: Ragged
    positive_scores: Float32[np.ndarray, " V"]
    groups: Int64[np.ndarray, " M"]
    similarity: Similarity
    near: float
    measure: str
    query_pairs: QueryPairs


@final
@dataclass(frozen=True, eq=False)
class Audit:
    """What the audit of a table found."""

    facts: TableFacts
    near: NearPairs
    by_score: Suspects
    by_similarity: Suspects
    near_queries: NearQueries
    judged: Mapping[str, JudgedFacts]
    difference: TableDifference | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the suspects themselves."""
        difference = self.difference
        return {
            **self.facts.to_dict(),
            "near_within": dataclasses.asdict(self.near),
            "at_or_above_positive": self.by_score.count,
            "near_a_positive": self.by_similarity.count,
            "near_queries": self.near_queries.to_dict(),
            "judged": {split: dataclasses.asdict(facts) for split, facts in self.judged.items()},
            "difference": None
            if difference is None
            else dataclasses.asdict(difference) | {"shared_share": difference.shared_share},
        }


@final
@dataclass(frozen=True, eq=False)
class Estimate:
    """One estimate of the false-negative rate, and what it recommends.

    Attributes:
        kind: by judgements held back, or by a teacher's scores.
        rate: with the settings of this run.
        sweep: over relative margins.
        recommended: of the sweep; None where no margin keeps to the bound.
        held_back: what was hidden and met; None for a teacher.
    """

    kind: Literal["held_back", "teacher"]
    rate: Rate
    sweep: list[SweepPoint]
    recommended: SweepPoint | None
    bound: float
    held_back: HeldBackRates | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def audit_table(
    subject: Subject,
    *,
    judged: Mapping[str, tuple[Int64[np.ndarray, " R"], Ragged]],
    old: NegativeTable | None,
    seed: int,
) -> Audit:
    """Audits a table.

    Args:
        subject: the table and what it is judged by.
        judged: evaluation split -> passages that answer any of its queries, and those that answer one of
            its queries with the text of the table's row i.
        old: an older table by the same rows.
        seed: of samples.
    """
    table, positives = subject.table, subject.positives
    scores, positive_scores = _chosen_by(subject)
    return Audit(
        facts=count_table(table, groups=subject.groups),
        near=near_within(table, subject.similarity, least=subject.near, seed=seed),
        by_score=by_score(table, scores, positives=positives, positive_scores=positive_scores, most=SUSPECTS),
        by_similarity=by_similarity(
            table, subject.similarity, positives=positives, least=subject.near, most=SUSPECTS
        ),
        near_queries=with_other_answers(
            subject.query_pairs, table, positives=positives, groups=subject.groups, most=SUSPECTS
        ),
        judged={
            split: count_judged(table, relevant=relevant, same_query=same)
            for split, (relevant, same) in judged.items()
        },
        difference=None if old is None else compare_tables(table, old),
    )


def estimate_held_back(
    positives: Ragged,
    mine: MineHeldBack,
    *,
    queries: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " M"],
    config: MiningConfig,
    audit: AuditConfig,
    seed: int,
) -> Estimate | None:
    """Mines with judgements held back, for a sweep of margins; None where no query has several.

    Args:
        positives: passage rows known to match query number i.
        mine: mines for the queries that hold something back.
        queries: query row of each number.
        groups: passages with one number, below the number of passages, are the same item.
        config: its relative margin is one of the sweep; its rate is the estimate.
        audit: how much is hidden, and the bound.
        seed: of what is hidden.
    """
    if not audit.hidden_queries:
        return None
    held = hold_back(
        positives,
        queries=queries,
        groups=groups,
        share=audit.hidden_share,
        seed=seed,
        most=audit.hidden_queries,
    )
    if not len(held):
        return None
    table, _ = mine(held, config.relative_margin)
    found = held_back_rates(table, held, groups=groups)
    if found is None:
        return None
    sweep = sweep_held_back(
        lambda margin: mine(held, margin), held, groups=groups, margins=_margins(config.relative_margin)
    )
    return Estimate(
        "held_back", found.rate, sweep, recommend(sweep, bound=audit.bound), audit.bound, held_back=found
    )


def estimate_teacher(subject: Subject, *, config: MiningConfig, audit: AuditConfig) -> Estimate | None:
    """Asks the teacher's scores in the table; None where there are none, or where a margin went by them."""
    table = subject.table
    if table.teacher is None or config.margin is not None or config.relative_margin is not None:
        return None
    pick = weakest_positive if config.positive == "weakest" else strongest_positive
    taught = pick(table.taught(subject.positives), subject.positives)
    rate = teacher_rate(table.teacher, taught)
    if rate is None:
        return None
    sweep = sweep_teacher(
        table,
        table.teacher,
        positive=pick(subject.positive_scores, subject.positives),
        positive_teacher=taught,
    )
    return Estimate("teacher", rate, sweep, recommend(sweep, bound=audit.bound), audit.bound, held_back=None)


def _chosen_by(subject: Subject) -> tuple[Float32[np.ndarray, "N n"], Float32[np.ndarray, " V"]]:
    if subject.table.teacher is None:
        return subject.table.scores, subject.positive_scores
    return subject.table.teacher, subject.table.taught(subject.positives)


def _margins(configured: float | None) -> list[float | None]:
    numbers = {margin for margin in (*MARGINS, configured) if margin is not None}
    return [None, *sorted(numbers)]

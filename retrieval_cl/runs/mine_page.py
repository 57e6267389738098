"""From the audit of a table to what its page shows and its JSON holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.mining.audit import TableDifference
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.audit_pairs import Suspects
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.near_queries import NearQueries
from retrieval_cl.reporting.facts import Found
from retrieval_cl.reporting.mining_facts import AuditFacts, EstimateFacts, Suspect, SuspectList
from retrieval_cl.reporting.wording import count, decimal, percent
from retrieval_cl.runs.mine_audit import Audit, Estimate, Subject


@final
@dataclass(frozen=True)
class Naming:
    """How rows are called.

    Attributes:
        query_id: query row -> its id.
        passage_id: passage row -> its id.
        query: query row -> what a reader sees of it.
        passage: passage row -> its title and text; the text is empty where there is none.
    """

    query_id: Callable[[int], str]
    passage_id: Callable[[int], str]
    query: Callable[[int], str]
    passage: Callable[[int], tuple[str, str]]


def audit_facts(audit: Audit, subject: Subject, *, naming: Naming) -> AuditFacts:
    """What the page shows of the audit."""
    return AuditFacts(
        per_query=audit.facts.per_query,
        per_source={name: (use.negatives, use.queries) for name, use in audit.facts.per_source.items()},
        copies=_copies(audit, subject),
        most_used=[(naming.passage(row)[0], uses) for row, uses in audit.facts.most_used],
        judged={
            split: (facts.negatives, facts.passages, facts.same_query)
            for split, facts in audit.judged.items()
        },
        difference={} if audit.difference is None else _difference(audit.difference),
        suspects=[
            SuspectList(
                "By score",
                "The highest scores of negatives, one a query, beside the strongest right answer. "
                f"{count(audit.by_score.count)} negatives score as high as that answer or higher.",
                _suspects(audit.by_score, subject.table.queries, naming=naming, why=_beside(audit.by_score)),
            ),
            SuspectList(
                "Nearly equal to a right answer",
                f"{count(audit.by_similarity.count)} negatives have a {subject.measure} of "
                f"{subject.near:g} or more with a right answer of their query.",
                _suspects(
                    audit.by_similarity,
                    subject.table.queries,
                    naming=naming,
                    why=[
                        f"{subject.measure} {decimal(alike, digits=2)}"
                        for alike in audit.by_similarity.measure.tolist()
                    ],
                ),
            ),
            _near_queries(audit.near_queries, subject, naming=naming),
        ],
    )


def suspect_rows(
    found: Suspects, queries: Int64[np.ndarray, " N"], *, naming: Naming
) -> list[dict[str, Any]]:
    """The suspects by their ids, for the JSON file."""
    return [
        {
            "query": naming.query_id(int(queries[line])),
            "positive": naming.passage_id(positive),
            "negative": naming.passage_id(row),
            "measure": measure,
            **({} if scores is None else {"score": scores[0], "positive_score": scores[1]}),
        }
        for (line, row, positive, measure), scores in zip(_each(found), _scores(found), strict=True)
    ]


def near_query_rows(
    found: NearQueries, queries: Int64[np.ndarray, " N"], *, naming: Naming
) -> list[dict[str, Any]]:
    """The pairs of nearly equal queries by their ids, for the JSON file."""
    return [
        {
            "query": naming.query_id(int(queries[left])),
            "other": naming.query_id(int(queries[right])),
            "positive": naming.passage_id(positive),
            "other_positive": naming.passage_id(other),
            "measure": alike,
        }
        for left, right, positive, other, alike in _each_pair(found)
    ]


def estimate_facts(
    found: Sequence[Estimate], *, config: MiningConfig, audit: AuditConfig
) -> list[EstimateFacts]:
    """What the page shows of the estimates."""
    names = {"held_back": "By judgements held back", "teacher": "By the teacher's scores"}
    return [
        EstimateFacts(
            name=names[one.kind],
            rate=one.rate,
            said=_said(one, audit),
            sweep=one.sweep,
            bound=one.bound,
            recommended=one.recommended,
            configured=config.relative_margin,
        )
        for one in found
    ]


def _said(one: Estimate, audit: AuditConfig) -> str:
    met = f"{count(one.rate.hits)} of {count(one.rate.trials)} negatives"
    if one.held_back is None:
        return (
            f"The teacher scores {met} at or above the right answer of their query. The estimate is as good "
            "as the teacher. The margins below are of the vectors' score."
        )
    held, drawn = one.held_back, one.held_back.drawn
    return (
        f"{percent(audit.hidden_share)} of the known passages of {count(held.queries)} queries with several "
        f"were hidden and these queries mined as configured: {met} were hidden right answers. So this speaks "
        "for queries with several right answers of which as large a share is unjudged. "
        f"Of {count(held.hidden)} hidden answers {percent(drawn.mean)} became a negative "
        f"({percent(drawn.low)} to {percent(drawn.high)}): where a query has u unjudged right answers and "
        "n negatives, expect about u / n times that. Whatever is unjudged already is not counted."
    )


def _copies(audit: Audit, subject: Subject) -> dict[str, str]:
    facts, near = audit.facts, audit.near
    looked = "" if near.looked_at == len(subject.table) else f" (of {count(near.looked_at)} looked at)"
    return {
        "copies of another negative of the same query": count(facts.equal_within),
        "nearly equal pairs within a query": (
            f"{count(near.pairs)}, in {count(near.queries)} queries{looked}; {subject.measure} "
            f"{subject.near:g} or more"
        ),
        "over all queries": (
            f"{count(facts.negatives)} negatives are {count(facts.passages)} passages "
            f"({count(facts.items)} without copies)"
        ),
    }


def _difference(found: TableDifference) -> dict[str, str]:
    return {
        "queries in both": count(found.queries),
        "queries new, gone": f"{count(found.only_new)}, {count(found.only_old)}",
        "shared negatives": f"{count(found.shared)} ({percent(found.shared_share)} of the new table's)",
        "new negatives": count(found.added),
        "gone negatives": count(found.gone),
    }


def _suspects(
    found: Suspects,
    queries: Int64[np.ndarray, " N"],
    *,
    naming: Naming,
    why: Sequence[str],
) -> list[Suspect]:
    return [
        Suspect(naming.query(int(queries[line])), _found(naming, positive), _found(naming, row), reason)
        for (line, row, positive, _), reason in zip(_each(found), why, strict=True)
    ]


def _beside(found: Suspects) -> list[str]:
    return [
        f"scores {decimal(pair[0], digits=2)}, the right answer {decimal(pair[1], digits=2)}"
        for pair in _scores(found)
        if pair is not None
    ]


def _scores(found: Suspects) -> Sequence[list[float] | None]:
    return [None] * len(found.lines) if found.scores is None else found.scores.tolist()


def _near_queries(found: NearQueries, subject: Subject, *, naming: Naming) -> SuspectList:
    pairs, queries = subject.query_pairs, subject.table.queries
    looked = "" if pairs.looked_at >= len(queries) else f" ({count(pairs.looked_at)} queries were looked at)"
    return SuspectList(
        "Nearly equal queries with other right answers",
        f"{count(found.pairs)} pairs of {count(found.queries)} queries have a {pairs.measure} of "
        f"{pairs.least:g} or more and other right answers{looked}. What answers one may answer the other, "
        f"and in a batch each meets the other's answer as a negative. {count(found.negatives)} mined "
        "negatives are a right answer of a query nearly equal to theirs.",
        [
            Suspect(
                f"{naming.query(int(queries[left]))}  |  {naming.query(int(queries[right]))}",
                _found(naming, positive),
                _found(naming, other),
                f"{pairs.measure} {decimal(alike, digits=2)}",
                sides=("right answer of the first", "right answer of the second"),
            )
            for left, right, positive, other, alike in _each_pair(found)
        ],
    )


def _each_pair(found: NearQueries) -> list[tuple[int, int, int, int, float]]:
    columns = (found.left, found.right, found.positives, found.other_positives, found.alike)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _found(naming: Naming, row: int) -> Found:
    title, text = naming.passage(row)
    return Found(title, text, 0.0)


def _each(found: Suspects) -> list[tuple[int, int, int, float]]:
    columns = (found.lines, found.rows, found.positives, found.measure)
    return list(zip(*(column.tolist() for column in columns), strict=True))

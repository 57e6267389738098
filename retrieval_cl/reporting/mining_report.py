"""The page of `mine --report`: what the rules removed and how hard the drawn negatives are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from retrieval_cl.reporting import found, mining_audit, sections
from retrieval_cl.reporting.facts import DataFacts, Example, MiningRound, Provenance
from retrieval_cl.reporting.mining_facts import AuditFacts, EstimateFacts
from retrieval_cl.reporting.page import Page, paragraph
from retrieval_cl.reporting.plots import Scores
from retrieval_cl.reporting.wording import count


@final
@dataclass(frozen=True, eq=False)
class MiningReport:
    """What the page shows; parts left empty are left out.

    Attributes:
        rounds: One, or several to compare.
        scores: `positives`, `in-batch`, `mined` -> cosines, a sample.
        examples: A query, its positive as `right`, and one list of the negatives drawn for it.
        audit: What lies in the table; None where it was not looked at.
        estimates: Of the false-negative rate.
        no_estimate: Why there is none.
    """

    rounds: Sequence[MiningRound]
    provenance: Provenance
    data: DataFacts | None = None
    scores: Scores = field(default_factory=dict)
    examples: Sequence[Example] = ()
    audit: AuditFacts | None = None
    estimates: Sequence[EstimateFacts] = ()
    no_estimate: str = ""


def write_mining_report(path: Path, report: MiningReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    assert report.rounds, "a mining report needs a round"
    page = Page("Hard negatives", over="retrieval-cl mine")
    page.lead(paragraph(_summary(report.rounds[-1]), kind="lead"))
    why = [paragraph(report.no_estimate)] if report.no_estimate else []
    page.section("How many are right answers?", *why, *mining_audit.estimates(report.estimates))
    page.section("What the rules removed", *found.mining(report.rounds))
    audit = report.audit
    if audit is not None:
        page.section("What was drawn", *mining_audit.drawn(audit))
    page.section("How hard are they?", *sections.histograms(report.scores))
    if audit is not None:
        page.section("Suspected right answers", *mining_audit.suspects(audit.suspects))
        page.section("Answers of evaluation queries", *mining_audit.judged(audit))
        page.section("Difference to the older table", *mining_audit.difference(audit))
    page.section("Examples", *found.negatives(report.examples))
    data = sections.data(report.data) if report.data is not None else []
    page.section("How to get this page again", *sections.reproduce(report.provenance), *data)
    page.write(path)


def _summary(last: MiningRound) -> str:
    drawn, queries = sum(last.counts.drawn.values()), last.counts.num_queries
    each = f", {drawn / queries:.1f} a query" if queries else ""
    empty = (
        f" {count(last.counts.empty)} places stayed empty."
        if last.counts.empty
        else " No place stayed empty."
    )
    return f"{count(drawn)} negatives for {count(queries)} queries{each}.{empty}"

"""The page of `mine --report`: what the rules removed and how hard the drawn negatives are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from retrieval_cl.reporting import found, sections
from retrieval_cl.reporting.facts import DataFacts, Example, MiningRound, Provenance
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
    """

    rounds: Sequence[MiningRound]
    provenance: Provenance
    data: DataFacts | None = None
    scores: Scores = field(default_factory=dict)
    examples: Sequence[Example] = ()


def write_mining_report(path: Path, report: MiningReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    assert report.rounds, "a mining report needs a round"
    page = Page("Hard negatives", over="retrieval-cl mine")
    page.lead(paragraph(_summary(report.rounds[-1]), kind="lead"))
    page.section("What the rules removed", *found.mining(report.rounds))
    page.section("How hard are they?", *sections.histograms(report.scores))
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

"""The page `quickstart` leaves behind: did it work, did hard negatives help, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from retrieval_cl.reporting import found, sections
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import (
    Comparison,
    DataFacts,
    Example,
    MiningRound,
    Provenance,
    Results,
)
from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import Page, paragraph
from retrieval_cl.reporting.plots import Scores
from retrieval_cl.reporting.wording import count, decimal, finding, listing, phrase, sentence

METRIC = "recall@10"  # the one the headline speaks of


@final
@dataclass(frozen=True, eq=False)
class QuickstartReport:
    """Everything the page shows. Parts left empty are left out of the page.

    Attributes:
        model: What was trained, in a few words: `a static encoder of 256 dimensions`.
        dim: Dimensions of its vectors.
        results: Systems in the order shown: bm25, control, mined, hybrid.
        control_is: What the control shares with the mined run, and how each was tuned.
        comparisons: Shown in this order; those against `control` answer whether hard negatives helped.
        arms: Training runs, `control` and `mined`.
        scores: `positives`, `in-batch`, `mined` -> cosines, a sample.
        examples: Lists named as shown: BM25, before mining, after mining.
        how_chosen: A sentence on how the examples were chosen.
        mining: Rounds, oldest first.
        seconds: Stage -> wall seconds, in order.
        total_seconds: Wall seconds of the whole command; None: the sum of the stages.
        peak_rss_gib: Peak resident memory.
        next_commands: (what it does, command).
    """

    data: DataFacts
    model: str
    dim: int
    results: Results
    provenance: Provenance
    control_is: str = "The control has the same data, encoder and number of steps, but no mined negatives."
    comparisons: Sequence[Comparison] = ()
    arms: Sequence[Arm] = ()
    scores: Scores = field(default_factory=dict)
    examples: Sequence[Example] = ()
    how_chosen: str = ""
    mining: Sequence[MiningRound] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    total_seconds: float | None = None
    peak_rss_gib: float | None = None
    next_commands: Sequence[tuple[str, str]] = ()


def write_report(path: Path, report: QuickstartReport) -> None:
    """Writes the page to `path`, whole or not at all; the same report gives the same bytes."""
    page = Page("A retriever for your Python documentation", over="retrieval-cl quickstart")
    page.lead(paragraph(*_summary(report), kind="lead"), *sections.headline(report.results, metric=METRIC))
    against, others = _split(report.comparisons)
    page.section(
        "Against BM25",
        *sections.findings(others, metric=METRIC),
        *sections.results_table(report.results),
        *sections.differences(others),
    )
    page.section("Did hard negatives help?", *_hard_negatives(report, against))
    page.section("Training", *sections.curves(report.arms, metric=METRIC))
    page.section("How hard are the negatives?", *sections.histograms(report.scores))
    page.section("Is the space healthy?", *sections.collapse(report.arms, dim=report.dim))
    cards = found.examples(report.examples, how_chosen=report.how_chosen)
    page.section("What is found, before and after mining", *cards)
    page.section("What mining did", *found.mining(report.mining))
    times = sections.timings(report.seconds, total=report.total_seconds, peak_rss_gib=report.peak_rss_gib)
    page.section("Where the time went", *times)
    page.section("Go on", *sections.next_steps(report.next_commands))
    page.section(
        "How to get this page again", *sections.reproduce(report.provenance), *sections.data(report.data)
    )
    page.write(path)


def _split(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    against = [one for one in comparisons if one.than == "control"]
    return against, [one for one in comparisons if one.than != "control"]


def _summary(report: QuickstartReport) -> list[str]:
    facts = report.data
    source = f" from {facts.what}" if facts.what else ""
    first = (
        f"{sentence(report.model)} was trained on {count(facts.num_train_queries)} "
        f"query-passage pairs{source}. "
    )
    numbers = [
        f"{decimal(row[METRIC].mean)} for {phrase(name)}"
        for name, row in report.results.items()
        if METRIC in row
    ]
    second = (
        f"On {count(facts.num_test_queries)} held-out queries over {count(facts.num_passages)} passages, "
        f"{METRIC} is {listing(numbers)}. "
        if numbers
        else ""
    )
    against, _ = _split(report.comparisons)
    third = next((finding(one) for one in against if one.metric == METRIC), "")
    return [first, second, third]


def _hard_negatives(report: QuickstartReport, against: Sequence[Comparison]) -> list[Html]:
    if not against:
        said = "No control was trained in this run, so what the hard negatives gained was not measured."
        return [paragraph(said)] if report.mining else []
    return [
        *sections.findings(against, metric=METRIC),
        paragraph(report.control_is),
        *sections.differences(against),
    ]

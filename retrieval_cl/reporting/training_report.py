"""The page of one training run."""

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
from retrieval_cl.reporting.page import Page, paragraph
from retrieval_cl.reporting.plots import Scores
from retrieval_cl.reporting.wording import count, decimal, sentence


@final
@dataclass(frozen=True, eq=False)
class TrainingReport:
    """What the page shows; parts left empty are left out. Attributes as in `QuickstartReport`.

    Attributes:
        name: The run's name, the title of the page.
        metric: The dev metric in the records of `arm`, and the headline's.
    """

    name: str
    model: str
    dim: int
    arm: Arm
    provenance: Provenance
    metric: str = "recall@10"
    data: DataFacts | None = None
    results: Results = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    scores: Scores = field(default_factory=dict)
    examples: Sequence[Example] = ()
    mining: Sequence[MiningRound] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    total_seconds: float | None = None
    peak_rss_gib: float | None = None
    next_commands: Sequence[tuple[str, str]] = ()


def write_training_report(path: Path, report: TrainingReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    page = Page(report.name, over="retrieval-cl training run")
    page.lead(
        paragraph(_summary(report), kind="lead"), *sections.headline(report.results, metric=report.metric)
    )
    page.section("Training", *sections.curves([report.arm], metric=report.metric))
    page.section(
        "Results",
        *sections.findings(report.comparisons, metric=report.metric),
        *sections.results_table(report.results),
        *sections.differences(report.comparisons),
    )
    page.section("How hard are the negatives?", *sections.histograms(report.scores))
    page.section("Is the space healthy?", *sections.collapse([report.arm], dim=report.dim))
    page.section("Examples", *found.examples(report.examples))
    page.section("What mining did", *found.mining(report.mining))
    times = sections.timings(report.seconds, total=report.total_seconds, peak_rss_gib=report.peak_rss_gib)
    page.section("Where the time went", *times)
    page.section("Go on", *sections.next_steps(report.next_commands))
    data = sections.data(report.data) if report.data is not None else []
    page.section("How to get this page again", *sections.reproduce(report.provenance), *data)
    page.write(path)


def _summary(report: TrainingReport) -> str:
    steps, _ = report.arm.series("loss")
    trained = (
        f"trained for {count(int(steps[-1]))} steps" if len(steps) else "with no training step on record"
    )
    pairs = f" on {count(report.data.num_train_queries)} queries" if report.data is not None else ""
    last = report.arm.last(report.metric)
    reached = f"; {report.metric} on dev ended at {decimal(last)}" if last is not None else ""
    return f"{sentence(report.model)}, {trained}{pairs}{reached}."

"""The page of one training run on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from retrieval_cl.reporting import found, sections
from retrieval_cl.reporting.contact_sheet import Tile, sheet
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, MiningRound, Provenance, Results
from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import Page, definitions, paragraph
from retrieval_cl.reporting.wording import count, decimal, sentence

_OF_IMAGES = "Share of the classified images that were named right, 95% Wilson interval below it."


@final
@dataclass(frozen=True, eq=False)
class ImageReport:
    """What the page shows; parts left empty are left out. Other attributes as in `TrainingReport`.

    Attributes:
        dim: Numbers of the vectors that the loss compares, whose health is watched.
        metric: The dev metric in the records of `arm`.
        headline: The metric of `results` that the page begins with.
        protocol: How the results were measured, by name.
        images: Facts on the images: sizes, splits, copies.
        neighbours: Rows of a contact sheet.
        neighbours_of: What the sheet shows, in a sentence.
    """

    name: str
    model: str
    dim: int
    arm: Arm
    provenance: Provenance
    metric: str = "knn_accuracy"
    headline: str = ""
    results: Results = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    protocol: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    neighbours: Sequence[Sequence[Tile]] = ()
    neighbours_of: str = ""
    mining: Sequence[MiningRound] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    total_seconds: float | None = None
    peak_rss_gib: float | None = None
    next_commands: Sequence[tuple[str, str]] = ()


def write_image_report(path: Path, report: ImageReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    page = Page(report.name, over="retrieval-cl training run")
    page.lead(
        paragraph(_summary(report), kind="lead"), *sections.headline(report.results, metric=report.headline)
    )
    page.section("What the features are worth", *_results(report))
    page.section("What lies near", *_neighbours(report))
    page.section("Training", *sections.curves([report.arm], metric=report.metric))
    health = sections.collapse([report.arm], dim=report.dim, what="images", pair="two views of an image")
    page.section("Is the space healthy?", *health)
    page.section("What mining did", *found.mining(report.mining))
    page.section("The images", *([definitions(report.images)] if report.images else []))
    times = sections.timings(report.seconds, total=report.total_seconds, peak_rss_gib=report.peak_rss_gib)
    page.section("Where the time went", *times)
    page.section("Go on", *sections.next_steps(report.next_commands))
    page.section("How to get this page again", *sections.reproduce(report.provenance))
    page.write(path)


def _summary(report: ImageReport) -> str:
    steps, _ = report.arm.series("loss")
    trained = (
        f"trained without labels for {count(int(steps[-1]))} steps"
        if len(steps)
        else "with no training step on record"
    )
    last = report.arm.last(report.metric)
    reached = f"; {report.metric} on dev ended at {decimal(last)}" if last is not None else ""
    return f"{sentence(report.model)}, {trained}{reached}."


def _results(report: ImageReport) -> list[Html]:
    if not report.results:
        return []
    return [
        *sections.findings(report.comparisons, metric=report.headline),
        *sections.results_table(report.results, note=_OF_IMAGES),
        *([definitions(report.protocol)] if report.protocol else []),
        *sections.differences(report.comparisons),
    ]


def _neighbours(report: ImageReport) -> list[Html]:
    shown = sheet(report.neighbours)
    return [paragraph(report.neighbours_of, kind="note"), *shown] if shown else []

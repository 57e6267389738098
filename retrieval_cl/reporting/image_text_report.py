"""The page of one training run on images with texts."""

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
from retrieval_cl.reporting.page import Page, definitions, paragraph, subheading
from retrieval_cl.reporting.wording import count, decimal, sentence

_OF_PARTS = "Mean over the queries, 95% interval below it."


@final
@dataclass(frozen=True, eq=False)
class ImageTextReport:
    """What the page shows; parts left empty are left out. Other attributes as in `TrainingReport`.

    Attributes:
        dim: Numbers of the vectors that the loss compares, whose health is watched.
        metric: The dev metric in the records of `arm`.
        results: Part (a direction, zero-shot) -> system -> metric -> mean with interval.
        headline: The part and the metric that the page begins with.
        protocol: How the results were measured, by name.
        data: Facts on images and captions.
        captions_found: Rows of a contact sheet: captions, each before the images found for it.
        images_found: Rows of a contact sheet: images, each before the captions found for it.
    """

    name: str
    model: str
    dim: int
    arm: Arm
    provenance: Provenance
    metric: str
    results: Mapping[str, Results] = field(default_factory=dict)
    headline: tuple[str, str] = ("", "")
    comparisons: Sequence[Comparison] = ()
    protocol: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    captions_found: Sequence[Sequence[Tile]] = ()
    images_found: Sequence[Sequence[Tile]] = ()
    mining: Sequence[MiningRound] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    total_seconds: float | None = None
    peak_rss_gib: float | None = None
    next_commands: Sequence[tuple[str, str]] = ()


def write_image_text_report(path: Path, report: ImageTextReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    page = Page(report.name, over="retrieval-cl training run")
    page.lead(paragraph(_summary(report), kind="lead"), *_headline(report))
    page.section("What the model finds", *_results(report))
    page.section("Captions and the images found for them", *_shown(report.captions_found))
    page.section("Images and the captions found for them", *_shown(report.images_found))
    page.section("Training", *sections.curves([report.arm], metric=report.metric))
    health = sections.collapse(
        [report.arm], dim=report.dim, what="images and captions", pair="an image and its caption"
    )
    page.section("Is the space healthy?", *health)
    page.section("What mining did", *found.mining(report.mining))
    page.section("The data", *([definitions(report.data)] if report.data else []))
    times = sections.timings(report.seconds, total=report.total_seconds, peak_rss_gib=report.peak_rss_gib)
    page.section("Where the time went", *times)
    page.section("Go on", *sections.next_steps(report.next_commands))
    page.section("How to get this page again", *sections.reproduce(report.provenance))
    page.write(path)


def _summary(report: ImageTextReport) -> str:
    steps, _ = report.arm.series("loss")
    trained = (
        f"trained for {count(int(steps[-1]))} steps" if len(steps) else "with no training step on record"
    )
    last = report.arm.last(report.metric)
    reached = f"; {report.metric} on dev ended at {decimal(last)}" if last is not None else ""
    return f"{sentence(report.model)}, {trained}{reached}."


def _headline(report: ImageTextReport) -> list[Html]:
    part, metric = report.headline
    named = f"{part} {metric}"
    rows = {name: {named: row[metric]} for name, row in report.results.get(part, {}).items() if metric in row}
    return sections.headline(rows, metric=named)


def _results(report: ImageTextReport) -> list[Html]:
    if not report.results:
        return []
    pieces: list[Html] = []
    for number, (part, results) in enumerate(report.results.items()):
        # Pictures of one name on a page share the ids of their shapes, and clip each other.
        table = sections.results_table(results, note=_OF_PARTS, name=f"metrics{number}")
        pieces += [subheading(part), *table]
    return [
        *pieces,
        *([definitions(report.protocol)] if report.protocol else []),
        *sections.differences(report.comparisons),
    ]


def _shown(rows: Sequence[Sequence[Tile]]) -> list[Html]:
    shown = sheet(rows)
    note = "A seeded sample of the split; each hit with its cosine, framed by whether it is known to match."
    return [paragraph(note, kind="note"), *shown] if shown else []

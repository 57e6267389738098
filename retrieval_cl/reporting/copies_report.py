"""The page on copies in a set of images: counts, and the pairs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from retrieval_cl.reporting import sections
from retrieval_cl.reporting.contact_sheet import Tile, pair_sheet
from retrieval_cl.reporting.facts import Provenance
from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import Page, definitions, paragraph, table, verdict
from retrieval_cl.reporting.wording import count, sentence


@final
@dataclass(frozen=True, eq=False)
class CopiesReport:
    """What the page shows.

    Attributes:
        name: Of the images.
        num_images: In all.
        within: Split -> images that are copies of an earlier one of it: (same pixels, near copies too).
        between: (split, other) -> images of `other` that are copies of one of `split`, counted likewise.
        leaks: Pairs whose two images stand in different splits.
        same: Pairs with the same pixels within a split.
        near: Pairs that look alike within a split.
        numbers: How many pairs there are of each kind, of which the page may show fewer.
        images: Further facts on the images.
        warning: Why near copies are not to be trusted here; the verdict then goes by equal pixels alone.
        provenance: Command, time, machine and how copies were sought.
    """

    name: str
    num_images: int
    within: Mapping[str, tuple[int, int]]
    between: Mapping[tuple[str, str], tuple[int, int]]
    provenance: Provenance
    leaks: Sequence[Sequence[Tile]] = ()
    same: Sequence[Sequence[Tile]] = ()
    near: Sequence[Sequence[Tile]] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""


def write_copies_report(path: Path, report: CopiesReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    page = Page(f"Copies in {report.name}", over="retrieval-cl copies")
    page.lead(*_findings(report))
    page.section("Counts", *_counts(report))
    page.section("In two splits", *_pairs(report.leaks, report.numbers.get("leaks", 0)))
    page.section("Near copies in one split", *_pairs(report.near, report.numbers.get("near", 0)))
    page.section("The same pixels in one split", *_pairs(report.same, report.numbers.get("same", 0)))
    page.section("The images", *([definitions(report.images)] if report.images else []))
    page.section("How to get this page again", *sections.reproduce(report.provenance))
    page.write(path)


def _findings(report: CopiesReport) -> list[Html]:
    same, near = (sum(pair[place] for pair in report.within.values()) for place in (0, 1))
    trusted = 0 if report.warning else 1
    leaked = sum(pair[trusted] for pair in report.between.values())
    alike = "" if report.warning else f", and {count(near - same)} more look like one"
    return [
        paragraph(
            f"Of {count(report.num_images)} images {count(same)} have the pixels of an earlier one of their "
            f"split{alike}.",
            kind="lead",
        ),
        verdict(
            f"{count(leaked)} held-out images are copies of images in another split: what is measured on "
            "them is memory."
            if leaked
            else "No image was found in two splits.",
            kind="bad" if leaked else "good",
        ),
        *([paragraph(f"{sentence(report.warning)}.", kind="note")] if report.warning else []),
    ]


def _counts(report: CopiesReport) -> list[Html]:
    rows = [
        *([f"in {split}", count(same), count(near)] for split, (same, near) in report.within.items()),
        *(
            [f"of {other}, in {split} as well", count(same), count(near)]
            for (split, other), (same, near) in report.between.items()
        ),
    ]
    note = "Of several copies in one split all but the first are counted."
    return [table(["copies", "same pixels", "near copies too"], rows, caption=note)]


def _pairs(pairs: Sequence[Sequence[Tile]], number: int) -> list[Html]:
    if not pairs:
        return []
    said = [paragraph(f"The first {len(pairs)} of {count(number)}.", kind="note")]
    return [*(said if number > len(pairs) else []), *pair_sheet(pairs)]

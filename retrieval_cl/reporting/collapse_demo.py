"""The page of `demo collapse`: one arm that collapses, three that do not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Float64, Int64
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from retrieval_cl.reporting import sections
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Provenance
from retrieval_cl.reporting.figures import Picture, canvas, picture
from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import Cell, Page, Row, figure, paragraph, table, tiles, verdict
from retrieval_cl.reporting.style import light
from retrieval_cl.reporting.wording import decimal, listing

# What keeps each arm from collapse, or does not.
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "positives alone": "Two views of an image are pulled together and nothing pushes. One vector for all "
        "images is the perfect answer, and the loss falls to 0 on the way there.",
        "SimCLR": "The other images of the batch are negatives: the loss of one vector for all is ln N, no "
        "longer the least one, and the vectors spread over the sphere.",
        "MoCo": "Its negatives are the keys of past steps, in a queue. A twin that moves slowly makes the "
        "keys, so that old and new ones can be compared.",
        "BYOL": "It has no negatives. Its target is a slow twin that gets no gradient, and a predictor "
        "stands on one side alone: the vectors are never simply pulled together.",
    }
)
_COLOURS = ("brick", "teal", "indigo", "ochre")
# Ten classes that can be told apart on a light ground and on a dark one.
_CLASS_COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
_PANELS = (
    ("loss", "Training loss", "of an anchor"),
    ("std_ratio", "Spread", "std of unit rows · √D"),
    ("effective_rank", "Effective rank", "directions in use"),
    ("knn_accuracy", "kNN accuracy", "share of held-out digits"),
)


@final
@dataclass(frozen=True, eq=False)
class CollapseArm:
    """One training of the demo.

    Attributes:
        name: One of `REASONS`, or any other.
        curves: Its records.
        vectors: Unit rows of the held-out digits at the end, as the loss sees them.
        labels: The digit each shows.
        accuracy: kNN accuracy of the encoder at the end.
        stopped: What the monitor said when it stopped the training; empty where it did not.
    """

    name: str
    curves: Arm
    vectors: Float32[np.ndarray, "N D"]
    labels: Int64[np.ndarray, " N"]
    accuracy: float
    stopped: str = ""

    def last(self, key: str) -> float:
        """The last value of a signal; NaN where it was never measured."""
        value = self.curves.last(key)
        return float("nan") if value is None else value


@final
@dataclass(frozen=True, eq=False)
class CollapseReport:
    """Everything the page shows; `seconds`: arm -> wall seconds, `total`: of the whole command."""

    arms: Sequence[CollapseArm]
    provenance: Provenance
    seconds: Mapping[str, float] = field(default_factory=dict)
    total: float | None = None


def write_collapse_report(path: Path, report: CollapseReport) -> None:
    """Writes the page to `path`, whole or not at all."""
    page = Page("How vectors collapse, and what keeps them apart", over="retrieval-cl demo collapse")
    page.lead(paragraph(_summary(report.arms), kind="lead"), *_headline(report.arms))
    page.section("What became of the vectors", *_pictures(report.arms))
    page.section("The signs, step by step", *_curves(report.arms))
    page.section("Why", *_reasons(report.arms))
    page.section("Where the time went", *sections.timings(report.seconds, total=report.total))
    page.section("How to get this page again", *sections.reproduce(report.provenance))
    page.write(path)


def principal_axes(vectors: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, "N 2"]:
    """The rows on their first two principal axes, in their own unit: a collapsed set stays a point."""
    rows = vectors.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # A sign is arbitrary: the same rows must give the same picture.
    places: Float64[np.ndarray, "N 2"] = (
        centred @ (axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]).T
    )
    return places


def _summary(arms: Sequence[CollapseArm]) -> str:
    fallen = [arm.name for arm in arms if arm.stopped]
    sound = [arm.name for arm in arms if not arm.stopped]
    said = (
        "One encoder was trained several times from the same weights, on the same handwritten digits and "
        "without labels; only what each view is compared with differs."
    )
    if fallen:
        said += f" The monitor stopped {listing(fallen)}."
    if sound:
        said += f" {listing(sound)} went on to the end."
    return said


def _headline(arms: Sequence[CollapseArm]) -> list[Html]:
    items = [
        (decimal(arm.accuracy), arm.name, "kNN accuracy at its end", _COLOURS[place % len(_COLOURS)])
        for place, arm in enumerate(arms)
    ]
    return [tiles(items)]


def _pictures(arms: Sequence[CollapseArm]) -> list[Html]:
    caption = (
        "Each point is a held-out digit, coloured by what it shows, on the first two principal axes of the "
        "vectors that the loss compares. All panels have the same scale: unit rows cannot lie farther out "
        "than 1. No label was used in training."
    )
    said = [verdict(f"{arm.name}: {arm.stopped}.", kind="bad") for arm in arms if arm.stopped]
    return [figure(_scatter(arms), caption=caption), *said]


def _curves(arms: Sequence[CollapseArm]) -> list[Html]:
    caption = (
        "A low loss is no proof of learning: that of the collapsed arm is the lowest. Spread tells. The "
        "effective rank alone does not: what little the vectors of a collapsed arm differ by may point "
        "anywhere. Losses of different methods have different units. A cross: here the monitor stopped the "
        "training."
    )
    return [figure(_signals(arms), caption=caption)]


def _reasons(arms: Sequence[CollapseArm]) -> list[Html]:
    rows: list[Row] = [
        [
            Cell(arm.name, note=REASONS.get(arm.name, "")),
            *(decimal(arm.last(key), digits=2) for key in ("std_ratio", "effective_rank", "uniformity")),
            decimal(arm.accuracy),
        ]
        for arm in arms
    ]
    return [table(["arm", "spread", "effective rank", "uniformity", "kNN accuracy"], rows)]


def _scatter(arms: Sequence[CollapseArm]) -> Picture:
    with canvas(270, ncols=len(arms), sharex=True, sharey=True) as (drawing, axes):
        for ax, arm in zip(axes[0], arms, strict=True):
            places = principal_axes(arm.vectors)
            for digit in np.unique(arm.labels):
                at = places[arm.labels == digit]
                colour = _CLASS_COLOURS[digit % len(_CLASS_COLOURS)]
                ax.scatter(at[:, 0], at[:, 1], s=9, color=colour, linewidths=0, alpha=0.85)
            ax.set(title=arm.name, xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
            ax.set_aspect("equal")
        _legend_of_digits(drawing, arms)
        said = [f"{arm.name}: spread {arm.last('std_ratio'):.2f}" for arm in arms]
        return picture(drawing, name="vectors", alt=f"Vectors on two principal axes. {'; '.join(said)}.")


def _legend_of_digits(drawing: Figure, arms: Sequence[CollapseArm]) -> None:
    digits = np.unique(np.concatenate([arm.labels for arm in arms]))
    handles = [
        Line2D([], [], linestyle="", marker="o", color=_CLASS_COLOURS[digit % 10], label=str(digit))
        for digit in digits
    ]
    drawing.legend(handles=handles, loc="outside lower center", ncols=len(digits), handletextpad=0.1)


def _signals(arms: Sequence[CollapseArm]) -> Picture:
    with canvas(500, nrows=2, ncols=2, sharex=True) as (drawing, axes):
        for ax, (key, title, unit) in zip(axes.flat, _PANELS, strict=True):
            for place, arm in enumerate(arms):
                _draw(ax, arm, key, colour=light(_COLOURS[place % len(_COLOURS)]))
            ax.set(title=title, ylabel=unit)
            ax.set_ylim(bottom=0)
        for ax in axes[1]:
            ax.set_xlabel("training step")
        handles = [
            Line2D([], [], color=light(_COLOURS[place % len(_COLOURS)]), label=arm.name)
            for place, arm in enumerate(arms)
        ]
        drawing.legend(handles=handles, loc="outside upper right", ncols=len(arms), labelcolor="linecolor")
        said = [f"{arm.name}: spread ends at {arm.last('std_ratio'):.2f}" for arm in arms]
        return picture(drawing, name="signals", alt=f"Four curves. {'; '.join(said)}.")


def _draw(ax: Any, arm: CollapseArm, key: str, *, colour: str) -> None:
    steps, values = arm.curves.series(key)
    ax.plot(steps, values, color=colour)
    if arm.stopped and len(steps):
        ax.plot(steps[-1:], values[-1:], color=colour, marker="X", markersize=9, linestyle="", clip_on=False)

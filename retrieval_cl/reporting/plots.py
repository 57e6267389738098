"""The pictures of a report: training curves, scores, health signals, metrics with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from retrieval_cl.reporting.collapse import Signal, signals
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Interval, Results
from retrieval_cl.reporting.figures import WIDTH, Picture, canvas, picture, thin
from retrieval_cl.reporting.style import colour_of, light, score_colour_of
from retrieval_cl.reporting.wording import between, decimal, label, score_label

# group of pairs (positives, in-batch, mined) -> cosines of query and passage
Scores = Mapping[str, Sequence[float] | Num[np.ndarray, " n"]]

_BINS = 60
_FAINT = 0.28  # opacity of what stands behind


def loss_and_recall(arms: Sequence[Arm], *, metric: str = "recall@10") -> Picture:
    """Loss above recall on dev, one line an arm, against the step; a vertical line where a round begins."""
    with canvas(440, nrows=2, sharex=True, height_ratios=(1, 1)) as (figure, axes):
        above, below = axes[:, 0]
        ends = []
        for index, arm in enumerate(arms):
            colour = light(colour_of(arm.name, index=index))
            _draw_loss(above, arm, colour=colour)
            steps, values = arm.series(metric)
            below.plot(steps, values, color=colour, marker="o", markersize=4.5, markeredgewidth=0)
            if len(values):
                ends.append((float(steps[-1]), float(values[-1]), colour))
        _label_ends(below, ends)
        above.set(title="Training loss", ylabel="loss per anchor (nats)")
        below.set(title=f"{metric} on dev", ylabel=metric, xlabel="training step")
        _mark_rounds(above, below, arms)
        _legend(figure, arms)
        said = [f"{label(arm.name)}: {_from_to(arm, 'loss')}, {_from_to(arm, metric)}" for arm in arms]
        return picture(figure, name="curves", alt=f"Two curves against the training step. {'; '.join(said)}.")


def finite_scores(scores: Scores) -> dict[str, Float64[np.ndarray, " n"]]:
    """The finite scores of each group; groups without any are left out."""
    arrays = {name: np.asarray(values, dtype=np.float64).ravel() for name, values in scores.items()}
    finite = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    return {name: values for name, values in finite.items() if len(values)}


def score_histograms(groups: Mapping[str, Float64[np.ndarray, " n"]]) -> Picture:
    """Cosines of query and passage in each group (positives, in-batch, mined), every group summing to 1.

    The groups come from `finite_scores`; there is at least one.
    """
    low = min(values.min() for values in groups.values())
    high = max(values.max() for values in groups.values())
    edges = np.linspace(low, max(high, low + 1e-3), _BINS + 1)
    with canvas(280) as (figure, axes):
        ax = axes[0, 0]
        for index, (name, values) in enumerate(groups.items()):
            colour = light(score_colour_of(name, index=index))
            shares = np.histogram(values, edges)[0] / len(values)
            ax.stairs(shares, edges, fill=True, color=colour, alpha=_FAINT, linewidth=0)
            ax.stairs(shares, edges, color=colour, linewidth=1.8, label=score_label(name))
            ax.plot([float(np.median(values))], [0], marker="^", markersize=9, color=colour, clip_on=False)
        ax.set(xlabel="cosine of query and passage", ylabel="share of pairs")
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(groups), labelcolor="linecolor")
        said = [f"{score_label(name)} {np.median(values):.2f}" for name, values in groups.items()]
        return picture(figure, name="scores", alt=f"Histograms of scores. Medians: {', '.join(said)}.")


def health_curves(arms: Sequence[Arm], *, dim: int) -> Picture:
    """Four signals of the space against the step, with the zone that means collapse."""
    with canvas(470, nrows=2, ncols=2, sharex=True) as (figure, axes):
        for ax, signal in zip(axes.flat, signals(dim), strict=True):
            _draw_signal(ax, signal, arms)
        for ax in axes[1]:
            ax.set_xlabel("training step")
        _legend(figure, arms)
        said = [
            f"{label(arm.name)}: {', '.join(_from_to(arm, signal.key) for signal in signals(dim))}"
            for arm in arms
        ]
        return picture(figure, name="health", alt=f"Four curves of collapse signals. {'; '.join(said)}.")


def metric_intervals(results: Results, *, metrics: Sequence[str], name: str = "metrics") -> Picture:
    """Every system's mean with its interval, one panel a metric; `name` is this picture's alone on its page.

    Dots, not bars: the axis need not begin at 0, so that differences of a point or two can be seen.
    """
    systems = list(results)
    with canvas(84 + 36 * len(systems), ncols=len(metrics), sharey=True) as (figure, axes):
        for ax, metric in zip(axes[0], metrics, strict=True):
            for row, system in enumerate(systems):
                if metric in results[system]:
                    _draw_interval(
                        ax, results[system][metric], row=row, colour=light(colour_of(system, index=row))
                    )
            ax.set(title=metric, yticks=range(len(systems)), yticklabels=[label(one) for one in systems])
            ax.set_ylim(len(systems) - 0.4, -0.7)
            ax.grid(axis="y", visible=False)
            ax.grid(axis="x", visible=True)
            ax.spines["left"].set_visible(False)
            ax.locator_params(axis="x", nbins=4)
            ax.margins(x=0.14)
        axes[0, 0].tick_params(axis="y", labelcolor=light("ink"))
        said = [
            f"{metric}: "
            + ", ".join(f"{label(n)} {between(results[n][metric])}" for n in systems if metric in results[n])
            for metric in metrics
        ]
        return picture(figure, name=name, alt=f"95% intervals by system. {'; '.join(said)}.")


def _draw_loss(ax: Any, arm: Arm, *, colour: str) -> None:
    steps, losses = arm.series("loss")
    borders = list(arm.round_starts().values())[1:]
    # Each round is smoothed on its own: new negatives make the loss jump, and the jump should be seen.
    for piece in np.split(np.arange(len(steps)), np.searchsorted(steps, borders)):
        if not len(piece):
            continue
        x, y = thin(steps[piece].astype(np.float64), losses[piece])
        ax.plot(x, y, color=colour, linewidth=1, alpha=_FAINT)
        ax.plot(x, _smooth(y), color=colour)


def _draw_signal(ax: Any, signal: Signal, arms: Sequence[Arm]) -> None:
    if signal.bad is not None:
        ax.axhspan(*signal.bad, color=light("brick"), alpha=0.10, linewidth=0)
        _say(ax, "collapse", (1.0, signal.bad[1]), shift=_beside_zone(signal), colour="brick", ha="right")
    value, name = signal.mark
    ax.axhline(value, color=light("muted"), linewidth=1, linestyle=(0, (4, 3)))
    _say(ax, name, (0.0, value), shift=(5.0, 4.0), colour="muted", bbox=_ground())
    for index, arm in enumerate(arms):
        steps, values = arm.series(signal.key)
        x, y = thin(steps.astype(np.float64), values)
        ax.plot(x, y, color=light(colour_of(arm.name, index=index)), marker="o" if len(x) == 1 else "")
    ax.set(title=signal.title, ylabel=signal.unit, ylim=signal.limits)


def _beside_zone(signal: Signal) -> tuple[float, float]:
    """Where the word goes, in points from the zone's upper edge: inside, or above where the zone is thin."""
    assert signal.bad is not None
    share = (signal.bad[1] - signal.bad[0]) / (signal.limits[1] - signal.limits[0])
    return (-6.0, -15.0) if share > 0.15 else (-6.0, 4.0)


def _draw_interval(ax: Any, interval: Interval, *, row: int, colour: str) -> None:
    ax.plot([interval.low, interval.high], [row, row], color=colour, linewidth=3, alpha=0.55)
    ax.plot([interval.mean], [row], marker="o", markersize=8, color=colour)
    where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
    text = decimal(interval.mean)
    ax.annotate(text, (interval.mean, row), **where, color=colour, fontsize=12, bbox=_ground(), zorder=1.5)


def _mark_rounds(above: Any, below: Any, arms: Sequence[Arm]) -> None:
    starts = max((arm.round_starts() for arm in arms), key=len, default={})
    if len(starts) < 2:
        return
    low, high = above.get_ylim()
    above.set_ylim(low, high + 0.14 * (high - low))
    for place, (number, step) in enumerate(starts.items()):
        for ax in (above, below) if place else ():
            ax.axvline(step, color=light("muted"), linewidth=1, alpha=0.6)
        text = f"round {number}" if len(starts) * 70 < WIDTH else str(number)
        at = {"xycoords": ("data", "axes fraction"), "bbox": _ground()}
        _say(above, text, (float(step), 1.0), shift=(6.0, -14.0), colour="muted", **at)


def _label_ends(ax: Any, ends: Sequence[tuple[float, float, str]]) -> None:
    """Writes the last value beside each line; the higher one above, so that two near ones can be read."""
    for place, (x, y, colour) in enumerate(sorted(ends, key=lambda end: end[1])):
        shift = 7 * (2 * place - len(ends) + 1)
        where = {"xytext": (8, shift), "textcoords": "offset points", "va": "center"}
        ax.annotate(decimal(y), (x, y), **where, color=colour)


def _say(
    ax: Any, text: str, at: tuple[float, float], *, shift: tuple[float, float], colour: str, **where: Any
) -> None:
    """A small word on the figure; `at`: share of the width, value on the y axis, unless told otherwise."""
    place = {"xycoords": ("axes fraction", "data"), "xytext": shift, "textcoords": "offset points"}
    ax.annotate(text, at, **(place | where), color=light(colour), fontsize=11.5, zorder=1.5)


def _ground() -> dict[str, Any]:
    """The ground of a text that stands where grid lines run, so that none goes through it."""
    return {"facecolor": light("paper"), "edgecolor": "none", "pad": 1}


def _legend(figure: Figure, arms: Sequence[Arm]) -> None:
    if len(arms) < 2:
        return
    handles = [
        Line2D([], [], color=light(colour_of(arm.name, index=index)), label=label(arm.name))
        for index, arm in enumerate(arms)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(arms), labelcolor="linecolor")


def _smooth(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Centred running mean over a tenth of the curve (not empty); at the ends over what there is."""
    width = max(1, len(values) // 10) | 1
    weights = np.convolve(np.ones(len(values)), np.ones(width), mode="full")
    sums = np.convolve(values, np.ones(width), mode="full")
    return (sums / np.maximum(weights, 1))[width // 2 :][: len(values)]


def _from_to(arm: Arm, key: str) -> str:
    _, values = arm.series(key)
    return f"{key} {values[0]:.3g} to {values[-1]:.3g}" if len(values) else f"{key} not measured"

"""Image-text models side by side on one split: both directions and zero-shot, with intervals and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from retrieval_cl.evaluation.accuracy import wilson_interval
from retrieval_cl.evaluation.results import SystemScores, differences, text_table
from retrieval_cl.evaluation.significance import Difference, Interval, bootstrap_interval
from retrieval_cl.reporting.facts import Comparison
from retrieval_cl.runs.image_text_scores import (
    DIRECTIONS,
    ZERO_SHOT,
    CrossModalTask,
    ImageTextTasks,
    Values,
    of_system,
)

TITLES = {"text_to_image": "text to image", "image_to_text": "image to text", ZERO_SHOT: "zero-shot"}
_BOTH_NAMES = "success@k: any right one among the first k, which papers on CLIP call R@k (recall@k)"


@final
@dataclass(frozen=True, eq=False)
class ImageTextBoard:
    """What models scored.

    Attributes:
        systems: part (a direction, or the zero-shot accuracy) -> the models, by name.
        pairs: (system, than), the comparisons that are tested.
        protocol: how it was measured, by what it is about.
    """

    systems: Mapping[str, Mapping[str, SystemScores]]
    pairs: Sequence[tuple[str, str]]
    protocol: Mapping[str, str]

    @classmethod
    def of(
        cls,
        found: Mapping[str, Mapping[str, Values]],
        *,
        pairs: Sequence[tuple[str, str]],
        protocol: Mapping[str, str],
    ) -> ImageTextBoard:
        """`found`: system -> part -> metric -> a value a query."""
        by_part: dict[str, dict[str, SystemScores]] = {}
        for name, parts in found.items():
            for part, scores in of_system(name, parts).items():
                by_part.setdefault(part, {})[name] = scores
        return cls(by_part, pairs, protocol)

    def results(self, part: str) -> dict[str, dict[str, Interval]]:
        """System -> metric -> mean with its interval."""
        return {
            name: {metric: _interval(metric, system) for metric in system.metrics}
            for name, system in self.systems[part].items()
        }

    def differences(self, part: str) -> Iterator[tuple[str, str, str, Difference]]:
        """(system, than, metric, difference) of every pair that both were measured for."""
        systems = self.systems[part]
        for system, than in self.pairs:
            if system in systems and than in systems:
                first, second = systems[system], systems[than]
                for metric, one in differences(first, second, metrics=list(first.metrics)).items():
                    yield system, than, metric, one

    def comparisons(self) -> list[Comparison]:
        """All differences, for a page; a metric carries the name of its part."""
        return [
            Comparison(system, than, title(part, metric), one.interval, one.p)
            for part in self.systems
            for system, than, metric, one in self.differences(part)
        ]

    def text(self) -> str:
        """A table for each part, the tests, and how all was measured, for a terminal."""
        lines: list[str] = []
        for part in self.systems:
            lines += [f"{TITLES[part]}:", text_table(self.results(part)), ""]
        tested = [
            f"{system} - {than}: {title(part, metric)} {one.interval.mean:+.3f} "
            f"[{one.interval.low:+.3f}, {one.interval.high:+.3f}], p = {one.p:.2g}"
            for part in self.systems
            for system, than, metric, one in self.differences(part)
            if metric in ("success@1", "success@10", ZERO_SHOT)
        ]
        if tested:
            lines += ["difference, 95 % interval, p of the paired permutation test:", *tested, ""]
        return "\n".join([*lines, *(f"{name}: {how}" for name, how in self.protocol.items())])

    def to_json(self, system: str) -> dict[str, Any]:
        """JSON values: the means of one system by direction and metric; then all systems, and the tests."""
        own = {part: self.systems[part][system].metrics for part in self.systems}
        return {
            **{
                part: {metric: float(values.mean()) for metric, values in own[part].items()}
                for part in DIRECTIONS
            },
            **({ZERO_SHOT: float(own[ZERO_SHOT][ZERO_SHOT].mean())} if ZERO_SHOT in own else {}),
            "systems": {
                part: {
                    name: {
                        metric: {"mean": one.mean, "low": one.low, "high": one.high}
                        for metric, one in row.items()
                    }
                    for name, row in self.results(part).items()
                }
                for part in self.systems
            },
            "comparisons": [
                {
                    "part": part,
                    "system": name,
                    "than": than,
                    "metric": metric,
                    "mean": one.interval.mean,
                    "low": one.interval.low,
                    "high": one.interval.high,
                    "p": one.p,
                    "wins": one.wins,
                    "losses": one.losses,
                    "detectable": one.detectable,
                }
                for part in self.systems
                for name, than, metric, one in self.differences(part)
            ],
            "protocol": dict(self.protocol),
        }


def title(part: str, metric: str) -> str:
    """A metric with the part it is of, for readers."""
    return metric if part == metric else f"{TITLES[part]} {metric}"


def describe_protocol(tasks: ImageTextTasks, *, split: str) -> dict[str, str]:
    """How the numbers were measured."""
    task = tasks.cross_modal
    found = {
        "retrieval": f"{len(task.images):,} images and {len(task.captions):,} distinct captions of split "
        f"{split}; {_right(task)}; cosine, ties counted against the model",
        "metrics": f"{_BOTH_NAMES}; recall@k: found of all right ones",
        "intervals": "95 %; Wilson for shares of queries, bootstrap for recall; queries, not seeds",
    }
    if tasks.zero_shot is not None:
        found["zero-shot"] = (
            f"{len(tasks.zero_shot.rows):,} images, {len(tasks.zero_shot.classes)} classes, mean vector of "
            f"{len(tasks.zero_shot.templates)} prompts a class"
        )
    return found


def _right(task: CrossModalTask) -> str:
    images, captions = task.images_of.counts.mean(), task.captions_of.counts.mean()
    return (
        f"{images:.1f} images are right for a caption and {captions:.1f} captions for an image, in the mean"
    )


def _interval(metric: str, system: SystemScores) -> Interval:
    values = system.metrics[metric]
    if metric == ZERO_SHOT or metric.startswith("success@"):
        return wilson_interval(round(values.sum()), len(values))
    return bootstrap_interval(values)

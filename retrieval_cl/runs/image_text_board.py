"""Image-text models side by side on one split: both directions and zero-shot, with intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from retrieval_cl.evaluation.accuracy import wilson_interval
from retrieval_cl.evaluation.results import SystemScores, differences, text_table
from retrieval_cl.evaluation.significance import Difference, Interval, bootstrap_interval
from retrieval_cl.reporting.facts import Comparison
from retrieval_cl.runs.image_text_config import DIRECTIONS, ZERO_SHOT
from retrieval_cl.runs.image_text_scores import CrossModalTask, ImageTextTasks, Values

TITLES = {"text_to_image": "text to image", "image_to_text": "image to text", ZERO_SHOT: "zero-shot"}
_BOTH_NAMES = "success@k: any right one among the first k, which papers on CLIP call R@k (recall@k)"
# What a terminal is told of the tests; results.json has all.
_TOLD = ("success@1", "success@10", ZERO_SHOT)


@final
@dataclass(frozen=True, eq=False)
class Tested:
    """How `system` differs from `than` by one metric of one part."""

    part: str
    system: str
    than: str
    metric: str
    difference: Difference

    @property
    def title(self) -> str:
        """The metric with the part it is of, for readers."""
        return self.metric if self.part == self.metric else f"{TITLES[self.part]} {self.metric}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        one = self.difference
        return {
            "part": self.part,
            "system": self.system,
            "than": self.than,
            "metric": self.metric,
            "mean": one.interval.mean,
            "low": one.interval.low,
            "high": one.interval.high,
            "p": one.p,
            "wins": one.wins,
            "losses": one.losses,
            "detectable": one.detectable,
        }


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
            for part, values in parts.items():
                by_part.setdefault(part, {})[name] = SystemScores(name, values)
        return cls(by_part, pairs, protocol)

    @cached_property
    def results(self) -> dict[str, dict[str, dict[str, Interval]]]:
        """Part -> system -> metric -> mean with its interval."""
        return {
            part: {
                name: {metric: _interval(metric, system) for metric in system.metrics}
                for name, system in systems.items()
            }
            for part, systems in self.systems.items()
        }

    @cached_property
    def tested(self) -> list[Tested]:
        """Every metric of every pair that both were measured for."""
        return [
            Tested(part, system, than, metric, one)
            for part, systems in self.systems.items()
            for system, than in self.pairs
            if system in systems and than in systems
            for metric, one in _differences(systems[system], systems[than]).items()
        ]

    def comparisons(self) -> list[Comparison]:
        """All differences, for a page; a metric carries the name of its part."""
        return [
            Comparison(one.system, one.than, one.title, one.difference.interval, one.difference.p)
            for one in self.tested
        ]

    def text(self) -> str:
        """A table for each part, the tests, and how all was measured, for a terminal."""
        lines: list[str] = []
        for part in self.systems:
            lines += [f"{TITLES[part]}:", text_table(self.results[part]), ""]
        tested = [
            f"{one.system} - {one.than}: {one.title} {one.difference.interval.mean:+.3f} "
            f"[{one.difference.interval.low:+.3f}, {one.difference.interval.high:+.3f}], "
            f"p = {one.difference.p:.2g}"
            for one in self.tested
            if one.metric in _TOLD
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
                    for name, row in systems.items()
                }
                for part, systems in self.results.items()
            },
            "comparisons": [one.to_json() for one in self.tested],
            "protocol": dict(self.protocol),
        }


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


def _differences(system: SystemScores, than: SystemScores) -> dict[str, Difference]:
    return differences(system, than, metrics=list(system.metrics))


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

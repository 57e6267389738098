"""The numbers of an image run: which images were named right, by what, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool

from retrieval_cl.evaluation.accuracy import wilson_interval
from retrieval_cl.evaluation.significance import Difference, Interval, compare
from retrieval_cl.runs.image_config import ImageEvaluationConfig
from retrieval_cl.runs.image_scores import Embedded, Encode, Task, embed, knn_right, linear_right

KNN, LINEAR = "knn_accuracy", "linear_accuracy"
RAW_PIXELS, RANDOM_ENCODER = "raw_pixel_knn_accuracy", "random_encoder_knn_accuracy"


@final
@dataclass(frozen=True, eq=False)
class ImageScores:
    """What was measured.

    Attributes:
        right: name of a number -> which of the images were named right.
        protocol: how, by what it is about.
        endings: of the names, one for each set that was measured.
    """

    right: Mapping[str, Bool[np.ndarray, " Q"]] = field(default_factory=dict)
    protocol: Mapping[str, str] = field(default_factory=dict)
    endings: tuple[str, ...] = ()

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Name of a number -> the share that was right."""
        return {name: wilson_interval(int(hits.sum()), len(hits)) for name, hits in self.right.items()}

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], Difference]:
        """(name, than) -> how the trained encoder differs from raw pixels and from its untrained self."""
        return {
            (KNN + ending, than + ending): compare(
                self.right[KNN + ending].astype(np.float64), self.right[than + ending].astype(np.float64)
            )
            for ending in self.endings
            for than in (RAW_PIXELS, RANDOM_ENCODER)
        }

    def text(self) -> str:
        """The numbers and how they were measured, for a terminal."""
        if not self.right:
            return "no two classes are known, so nothing was measured; see metrics.jsonl"
        width = max(len(name) for name in self.right)
        lines = [
            f"{name.ljust(width)}  {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"
            for name, one in self.intervals.items()
        ]
        return "\n".join([*lines, *(f"{name}: {how}" for name, how in self.protocol.items())])

    def to_json(self) -> dict[str, Any]:
        """JSON values: each number by its name, then intervals, protocol and tests."""
        found = self.intervals
        return {
            **{name: one.mean for name, one in found.items()},
            "intervals": {name: [one.low, one.high] for name, one in found.items()},
            "protocol": dict(self.protocol),
            "comparisons": [
                {
                    "number": name,
                    "than": than,
                    "mean": one.interval.mean,
                    "low": one.interval.low,
                    "high": one.interval.high,
                    "p": one.p,
                    "wins": one.wins,
                    "losses": one.losses,
                }
                for (name, than), one in self.comparisons.items()
            ],
        }


def embed_all(tasks: Mapping[str, Task], encode: Encode) -> dict[str, Embedded]:
    """The vectors of each task's images."""
    return {ending: embed(task, encode) for ending, task in tasks.items()}


def named_right(
    tasks: Mapping[str, Task],
    embedded: Mapping[str, Embedded],
    *,
    config: ImageEvaluationConfig,
    device: torch.device,
    knn: str,
) -> dict[str, Bool[np.ndarray, " Q"]]:
    """Name `knn` with a task's ending -> which images their nearest neighbours name right."""
    return {
        knn + ending: knn_right(task, embedded[ending], config=config, device=device)
        for ending, task in tasks.items()
    }


def linearly_right(
    tasks: Mapping[str, Task], embedded: Mapping[str, Embedded], *, seed: int
) -> dict[str, Bool[np.ndarray, " Q"]]:
    """Name of the linear accuracy with a task's ending -> which images are named right."""
    return {
        LINEAR + ending: linear_right(task, embedded[ending], seed=seed) for ending, task in tasks.items()
    }

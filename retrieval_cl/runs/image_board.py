"""Models of images side by side on the same images: classified and retrieved, with intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.evaluation.accuracy import wilson_interval
from retrieval_cl.evaluation.labels import same_label
from retrieval_cl.evaluation.metrics import RECALL_CUTS, evaluate_hits
from retrieval_cl.evaluation.results import SystemScores, differences, text_table
from retrieval_cl.evaluation.significance import Difference, Interval, bootstrap_interval
from retrieval_cl.runs.image_results import KNN, LINEAR

TABLE = (KNN, LINEAR, "success@1", "recall@10", "ndcg@10")
RETRIEVAL = (
    "each image is asked, the others of its split are searched by cosine, those of its class are right; "
    "recall@k: found of all that are right; success@k: any found, which papers on images call recall@k"
)
# Judgements of so many queries lie in memory at a time.
_QUERIES = 1024


@final
@dataclass(frozen=True, eq=False)
class ImageBoard:
    """What models scored on the images of one split.

    Attributes:
        systems: each with its values of every metric, the ending of the set behind its name.
        results: system -> metric -> mean; those of the table with interval.
        pairs: (system, than) -> metric of the table -> paired difference.
        protocol: how it was measured.
        endings: one for each set.
    """

    systems: Sequence[SystemScores]
    results: Mapping[str, Mapping[str, Interval]]
    pairs: Mapping[tuple[str, str], Mapping[str, Difference]]
    protocol: Mapping[str, str]
    endings: Sequence[str]

    def text(self) -> str:
        """A table for each set, the tests, and how all was measured, for a terminal."""
        lines = [
            f"{text_table({name: _part(row, ending) for name, row in self.results.items()})}\n"
            for ending in self.endings
        ]
        lines.append("difference, 95 % interval, p of the paired permutation test:")
        for (system, than), found in self.pairs.items():
            for metric, one in found.items():
                span = one.interval
                lines.append(
                    f"{system} - {than}: {metric} {span.mean:+.3f} [{span.low:+.3f}, {span.high:+.3f}], "
                    f"p = {one.p:.2g}"
                )
        return "\n".join([*lines, "", *(f"{name}: {how}" for name, how in self.protocol.items())])

    def to_json(self) -> dict[str, Any]:
        """JSON values: every metric of every system, those of the table with intervals, and the tests."""
        return {
            "systems": {
                system.name: {
                    metric: {"mean": float(values.mean())} for metric, values in system.metrics.items()
                }
                | {metric: _interval(one) for metric, one in self.results[system.name].items()}
                for system in self.systems
            },
            "comparisons": [
                {
                    "system": system,
                    "than": than,
                    "metric": metric,
                    **_interval(one.interval),
                    "p": one.p,
                    "wins": one.wins,
                    "losses": one.losses,
                    "detectable": one.detectable,
                }
                for (system, than), found in self.pairs.items()
                for metric, one in found.items()
            ],
            "protocol": dict(self.protocol),
        }


def compare_models(
    systems: Sequence[SystemScores],
    *,
    pairs: Sequence[tuple[str, str]],
    protocol: Mapping[str, str],
    endings: Sequence[str],
) -> ImageBoard:
    """Means with intervals, and a paired test of each (system, than) on all that both were measured by."""
    named = {system.name: system for system in systems}
    wanted = [metric + ending for ending in endings for metric in TABLE]
    return ImageBoard(
        systems=systems,
        results={
            system.name: {
                metric: _mean(metric, system.metrics[metric]) for metric in wanted if metric in system.metrics
            }
            for system in systems
        },
        pairs={
            (system, than): differences(
                named[system],
                named[than],
                metrics=[metric for metric in wanted if metric in named[than].metrics],
            )
            for system, than in pairs
        },
        protocol=protocol,
        endings=endings,
    )


def retrieved(labels: Int64[np.ndarray, " Q"], hits: Hits) -> dict[str, Float64[np.ndarray, " Q"]]:
    """Metric -> value of each image: all are asked, and all others searched.

    Args:
        labels: class of each.
        hits: row i are the images nearest to image i, without itself.
    """
    parts = []
    for start in range(0, len(labels), _QUERIES):
        own = np.arange(start, min(start + _QUERIES, len(labels)), dtype=np.int64)
        right = same_label(labels[own], labels, own=own)
        parts.append(evaluate_hits(Hits(hits.scores[own], hits.rows[own]), right, recall_cuts=RECALL_CUTS))
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}


def _part(row: Mapping[str, Interval], ending: str) -> dict[str, Interval]:
    return {key: one for key in (metric + ending for metric in TABLE) if (one := row.get(key)) is not None}


def _mean(metric: str, values: Float64[np.ndarray, " Q"]) -> Interval:
    # Shares of images, each right or not, have the interval that training gives them.
    if metric.startswith((KNN, LINEAR, "success@")):
        return wilson_interval(int(values.sum()), len(values))
    return bootstrap_interval(values)


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}

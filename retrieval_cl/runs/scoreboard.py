"""Systems side by side on the same queries: means with intervals, paired tests, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from retrieval_cl.core.hits import Hits
from retrieval_cl.evaluation.results import (
    SystemScores,
    differences,
    mean_intervals,
    text_table,
    write_per_query,
)
from retrieval_cl.evaluation.significance import Difference, Interval
from retrieval_cl.evaluation.trec import write_run
from retrieval_cl.reporting.facts import Comparison
from retrieval_cl.runs.judged import Judged
from retrieval_cl.sources.records import RetrievalData


@final
@dataclass(frozen=True, eq=False)
class Scoreboard:
    """What systems scored on the queries of one split.

    Attributes:
        split: its name.
        judged: its queries.
        hits: system -> what it found.
        systems: system -> metric -> value of each query.
        results: system -> metric of the table -> mean and interval.
        pairs: (system, than) -> metric -> difference.
    """

    split: str
    judged: Judged
    hits: Mapping[str, Hits]
    systems: Sequence[SystemScores]
    results: Mapping[str, Mapping[str, Interval]]
    pairs: Mapping[tuple[str, str], Mapping[str, Difference]]

    def comparisons(self) -> list[Comparison]:
        """The differences as a report shows them."""
        return [
            Comparison(system, than, metric, difference.interval, difference.p)
            for (system, than), found in self.pairs.items()
            for metric, difference in found.items()
        ]

    def text(self) -> str:
        """The table and the tests, for a terminal."""
        lines = [
            f"{len(self.judged.queries):,} queries of split '{self.split}'",
            "",
            text_table(self.results),
        ]
        lines += ["", "difference, 95 % interval, p of the paired permutation test:"] if self.pairs else []
        for one in self.comparisons():
            interval = one.difference
            lines.append(
                f"{one.system} - {one.than}: {one.metric} {interval.mean:+.3f} "
                f"[{interval.low:+.3f}, {interval.high:+.3f}], p = {one.p:.2g}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """JSON values: every metric of every system, those of the table with intervals, and the tests."""
        return {
            "split": self.split,
            "num_queries": len(self.judged.queries),
            "systems": {
                system.name: {
                    metric: {"mean": float(values.mean())} for metric, values in system.metrics.items()
                }
                | {metric: _interval(value) for metric, value in self.results[system.name].items()}
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
        }

    def write_per_query(self, path: Path, data: RetrievalData) -> None:
        """Writes every metric of every query."""
        write_per_query(path, self.systems, query_ids=_ids(data, self.judged))

    def write_runs(self, folder: Path, data: RetrievalData) -> None:
        """Writes `<system>.trec` for each system. Raises InputError where an id holds white space."""
        for name, hits in self.hits.items():
            write_run(
                folder / f"{name}.trec",
                hits,
                query_ids=_ids(data, self.judged),
                passage_ids=data.passages.ids,
                tag=name,
            )


def compare_systems(
    hits: Mapping[str, Hits], judged: Judged, *, split: str, pairs: Sequence[tuple[str, str]], seed: int = 0
) -> Scoreboard:
    """Scores what each system found, and tests each (system, than) pair on the table's metrics."""
    systems = {name: SystemScores(name, judged.measure(found)) for name, found in hits.items()}
    return Scoreboard(
        split=split,
        judged=judged,
        hits=hits,
        systems=list(systems.values()),
        results=mean_intervals(list(systems.values()), seed=seed),
        pairs={
            (system, than): differences(systems[system], systems[than], seed=seed) for system, than in pairs
        },
    )


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _ids(data: RetrievalData, judged: Judged) -> list[str]:
    return [data.queries.ids[row] for row in judged.queries.tolist()]

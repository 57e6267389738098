"""What systems scored: query by query on disk, side by side as means with intervals, and as a text table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file
from retrieval_cl.evaluation.lines import numbered_lines
from retrieval_cl.evaluation.significance import Difference, Interval, bootstrap_interval, compare

TABLE_METRICS = ("recall@10", "mrr@10", "ndcg@10")


@dataclass(frozen=True, eq=False)
class SystemScores:
    """One system's values on a list of queries.

    Attributes:
        name: of the system.
        metrics: metric name -> one value a query, all in the order of one list of queries.
    """

    name: str
    metrics: Mapping[str, Float64[np.ndarray, " Q"]]

    def __post_init__(self) -> None:
        assert len({len(values) for values in self.metrics.values()}) <= 1


def mean_intervals(
    systems: Sequence[SystemScores], *, metrics: Sequence[str] = TABLE_METRICS, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """System -> metric -> mean over the queries with its 95 % interval."""
    return {
        system.name: {metric: bootstrap_interval(system.metrics[metric], seed=seed) for metric in metrics}
        for system in systems
    }


def differences(
    system: SystemScores, than: SystemScores, *, metrics: Sequence[str] = TABLE_METRICS, seed: int = 0
) -> dict[str, Difference]:
    """Metric -> how `system` differs from `than` over the same queries."""
    return {metric: compare(system.metrics[metric], than.metrics[metric], seed=seed) for metric in metrics}


def text_table(results: Mapping[str, Mapping[str, Interval]]) -> str:
    """One line a system, `mean [low, high]` a metric, columns aligned; for terminals and logs."""
    metrics = list(dict.fromkeys(metric for row in results.values() for metric in row))
    lines = [["", *metrics]]
    for name, row in results.items():
        lines.append([name, *(_cell(row.get(metric)) for metric in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_per_query(path: Path, systems: Sequence[SystemScores], *, query_ids: Sequence[str]) -> None:
    """Writes a line a query, `{"query": id, "scores": {system: {metric: value}}}`; values keep every bit."""
    columns = {
        system.name: {metric: values.tolist() for metric, values in system.metrics.items()}
        for system in systems
    }
    assert all(len(values) == len(query_ids) for metrics in columns.values() for values in metrics.values())
    with new_file(path) as part, part.open("w", encoding="utf8") as stream:
        for row, query in enumerate(query_ids):
            scores = {
                name: {metric: values[row] for metric, values in metrics.items()}
                for name, metrics in columns.items()
            }
            stream.write(
                json.dumps({"query": query, "scores": scores}, ensure_ascii=False, allow_nan=False) + "\n"
            )


def read_per_query(path: Path) -> tuple[list[str], list[SystemScores]]:
    """Reads what `write_per_query` wrote: the query ids and the systems.

    Raises:
        InputError: a line is broken, or names other systems or metrics than the first; with file and line.
    """
    queries: list[str] = []
    records: list[dict[str, dict[str, float]]] = []
    for number, line in numbered_lines(path):
        query, scores = _parse(line, where=f"{path}, line {number}")
        if records and _names(scores) != _names(records[0]):
            raise InputError(f"{path}, line {number}: other systems or metrics than in the first line")
        queries.append(query)
        records.append(scores)
    names = _names(records[0]) if records else {}
    return queries, [
        SystemScores(
            name, {metric: np.array([record[name][metric] for record in records]) for metric in metrics}
        )
        for name, metrics in names.items()
    ]


def _parse(line: str, *, where: str) -> tuple[str, dict[str, dict[str, float]]]:
    try:
        record = json.loads(line)
        scores = {
            name: {metric: float(value) for metric, value in metrics.items()}
            for name, metrics in record["scores"].items()
        }
        return str(record["query"]), scores
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{where}: expected {{"query": ..., "scores": ...}}, found {error!r}') from None


def _names(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    return {name: list(metrics) for name, metrics in scores.items()}


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

"""One training run as curves: the lines of its metrics file by name, each against the step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.core.errors import InputError


@final
@dataclass(frozen=True, eq=False)
class Arm:
    """The records of one training run, oldest first.

    Attributes:
        name: `control`, `mined` or any name; it chooses colour and label.
        records: Each has `step` and any of `round`, `loss`, `recall@10` (on dev), `std_ratio`,
            `effective_rank`, `alignment`, `uniformity`: bare, inside one further mapping
            (`{"health": {"std_ratio": ...}}`) or behind a prefix (`dev/recall@10`). What was not measured
            at a step is absent or null.
    """

    name: str
    records: Sequence[Mapping[str, Any]]

    def series(self, key: str) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Steps, ascending, and the values of `key` at them; not measured and not finite ones are left out.

        A resumed run repeats the steps since its checkpoint: the later record counts.
        """
        found: dict[int, float] = {}
        for record in self._flat_records:
            value = record.get(key)
            if value is not None and math.isfinite(value):
                found[int(record["step"])] = float(value)
        steps = np.array(sorted(found), dtype=np.int64)
        return steps, np.array([found[step] for step in steps.tolist()], dtype=np.float64)

    def last(self, key: str) -> float | None:
        """The last value of `key`, or None where it was never measured."""
        _, values = self.series(key)
        return float(values[-1]) if len(values) else None

    def round_starts(self) -> dict[int, int]:
        """Round -> its first recorded step."""
        steps, rounds = self.series("round")
        starts: dict[int, int] = {}
        for step, number in zip(steps.tolist(), rounds.tolist(), strict=True):
            starts.setdefault(int(number), step)
        return starts

    @cached_property
    def _flat_records(self) -> list[dict[str, Any]]:
        return [_flat(record) for record in self.records]


def read_arm(path: Path, *, name: str) -> Arm:
    """Reads a metrics file (JSON lines). Raises InputError with file and line where it cannot be read."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected the metrics of a training run, one JSON object a line"
        )
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: broken JSON: {error}") from None
        if not isinstance(record, dict) or "step" not in record:
            raise InputError(f"{path}, line {number}: expected an object with `step`")
        records.append(record)
    return Arm(name, records)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {key.rpartition("/")[2]: value}
    return flat

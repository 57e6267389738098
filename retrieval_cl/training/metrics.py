"""The metrics file of a run: one JSON object a line, each with its step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval_cl.core.ranks import rank


class MetricsLog:
    """Appends lines; only rank 0 writes. Numbers that are not finite become null.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, **fields: Any) -> None:
        """Adds one line and hands it to the operating system, so that a killed run keeps it."""
        if rank() != 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf8") as stream:
            stream.write(json.dumps({"step": step, **_finite(fields)}, allow_nan=False) + "\n")

    def size(self) -> int:
        """Length in bytes, as `cut` takes it."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def cut(self, size: int) -> None:
        """Drops all behind `size` bytes: lines a resumed run writes again, one that a kill cut short."""
        if rank() == 0 and self.size() > size:
            os.truncate(self.path, size)


def _finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _finite(value) if isinstance(value, Mapping) else _finite_or_none(value)
        for key, value in fields.items()
    }


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Where the wall time of a run went, and how much memory it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import final


@final
class Stopwatch:
    """Adds up seconds by stage.

    Attributes:
        seconds: stage -> wall seconds, in the order in which stages were first entered.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Counts the time spent inside towards `stage`."""
        self.seconds.setdefault(stage, 0.0)
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += perf_counter() - started

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return perf_counter() - self._started


def peak_rss_gib() -> float:
    """Peak resident memory of this process or of its largest child, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit / 2**30

"""What the benchmarks share: contestants timed in turn, memory in a child process, a table, a JSON file.

Everywhere `ratio` is ours / peer. Where contestants were timed, it is the median over the rounds of the ratio
within a round: a machine that slows down for a while slows both.
"""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

import torch

Step = Callable[[], Any]
T = TypeVar("T")
MIB = 1024.0**2


@dataclass(frozen=True)
class Goal:
    """A bound on a row's `ratio` or on its `ours`; a row that misses a required one is an error."""

    limit: float
    kind: Literal["at most", "at least"] = "at most"
    of: Literal["ratio", "ours"] = "ratio"
    required: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table. `peer` and `ratio` are None where there is nothing to compare with."""

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    goal: Goal | None = None

    @property
    def reached(self) -> bool:
        """Whether the goal was reached; true where there is none. NaN reaches nothing."""
        if self.goal is None:
            return True
        value = self.ratio if self.goal.of == "ratio" else self.ours
        assert value is not None, self
        return value <= self.goal.limit if self.goal.kind == "at most" else value >= self.goal.limit

    @property
    def verdict(self) -> str:
        """The goal and whether it was reached; empty where there is none."""
        if self.goal is None:
            return ""
        word = "reached" if self.reached else "MISSED"
        return f"{word}: {self.goal.of} {self.goal.kind} {self.goal.limit:g}"


def compare_amounts(name: str, ours: float, peer: float, *, unit: str, goal: Goal | None = None) -> Row:
    """A row of two numbers that were measured once each."""
    return Row(name, ours, peer, unit, ours / peer if peer else None, goal)


@dataclass(frozen=True, eq=False)
class Timings:
    """What `time_in_turn` found, by contestant: seconds of each round, and what its first run returned."""

    seconds: Mapping[str, list[float]]
    values: Mapping[str, Any]

    def compare(self, name: str, ours: str, peer: str, *, goal: Goal | None = None) -> Row:
        """A row of median seconds."""
        ratio = median(a / b for a, b in zip(self.seconds[ours], self.seconds[peer], strict=True))
        return Row(name, median(self.seconds[ours]), median(self.seconds[peer]), "s", ratio, goal)

    def compare_rates(
        self, name: str, ours: str, peer: str, *, amount: float, unit: str, goal: Goal | None = None
    ) -> Row:
        """A row of rates, `amount` per median second, for two contestants that do as much; more is better."""
        ratio = median(b / a for a, b in zip(self.seconds[ours], self.seconds[peer], strict=True))
        rate, other = (amount / median(self.seconds[each]) for each in (ours, peer))
        return Row(name, rate, other, unit, ratio, goal)


def time_in_turn(
    contestants: Mapping[str, Step], *, repeats: int, wait: Callable[[], object] = lambda: None
) -> Timings:
    """One untimed round, then `repeats` rounds in which all contestants run once; every other one backwards.

    Args:
        contestants: what to time, by name.
        repeats: rounds.
        wait: returns when all work that was started is done (`torch.cuda.synchronize`).
    """
    values = {name: step() for name, step in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats):
        turn = list(contestants)[:: 1 if number % 2 == 0 else -1]
        for name in turn:
            wait()
            start = time.perf_counter()
            contestants[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return Timings(seconds, values)


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module returns in a fresh process: nothing of this one's memory counts there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes(step: Step, *, warm_up: Step) -> int:
    """How far the resident memory of this process rises while a step runs, in bytes; Linux only.

    The kernel's own high-water mark (VmHWM) is set back by writing 5 to /proc/self/clear_refs, so that
    nothing before the step counts, and no short peak is missed. Before that `warm_up` brings in code and
    thread pools, and malloc gives back what it kept, as a step that finds free memory would seem to need
    none. Memory that libraries keep for later calls counts.
    """
    warm_up()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    kept = step()
    after = _status("VmHWM")
    del kept
    return after - before


def parse(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Adds what all scripts take, parses, sets the number of threads."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, no figures")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    return given


def report(rows: Sequence[Row], given: Namespace) -> None:
    """Prints the table and, with --json, writes the rows; with --quick no goal is judged."""
    width = max((len(row.name) for row in rows), default=0)
    print(f"{'':{width}}  {'ours':>10}  {'peer':>10}  {'unit':<8}  {'ratio':>7}  goal")
    for row in rows:
        numbers = (f"{_short(row.ours):>10}", f"{_short(row.peer):>10}", f"{row.unit:<8}")
        verdict = "" if given.quick else row.verdict
        print(f"{row.name:{width}}  {'  '.join(numbers)}  {_short(row.ratio):>7}  {verdict}".rstrip())
    if given.json is not None:
        save(rows, given.json)


def save(rows: Sequence[Row], file: Path) -> None:
    """Writes a list of {name, ours, peer, unit, ratio}."""
    keys = ("name", "ours", "peer", "unit", "ratio")
    file.write_text(json.dumps([{key: getattr(row, key) for key in keys} for row in rows], indent=2) + "\n")


def machine() -> str:
    """Processor, threads and versions, in one line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else "unknown processor"
    return f"{processor}; {torch.get_num_threads()} threads; torch {torch.__version__}"


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))

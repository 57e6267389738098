"""Is the space collapsing? Rules of thumb for the health signals, as zones on a figure and as a verdict.

The bounds are ours and deliberately low: they catch an encoder that gives every text nearly the same vector,
or vectors on a few axes (Jing et al. 2022, dimensional collapse); a space above them may still be a poor one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.page import Verdict
from retrieval_cl.reporting.wording import decimal, label, listing


@final
@dataclass(frozen=True)
class Signal:
    """One health signal and where it is bad.

    Attributes:
        key: Its name in the records of a run.
        title: What it tells; `unit`: what the axis counts.
        limits: Range of the axis.
        bad: Range that means collapse, or None where the signal alone does not tell.
        mark: A value to compare with and what it is.
    """

    key: str
    title: str
    unit: str
    limits: tuple[float, float]
    bad: tuple[float, float] | None
    mark: tuple[float, str]


def signals(dim: int) -> tuple[Signal, ...]:
    """The four signals of vectors with `dim` dimensions."""
    size = float(dim)
    return (
        Signal(
            "std_ratio", "Spread", "std of unit rows · √D", (0.0, 1.15), (0.0, 0.5), (1.0, "evenly spread")
        ),
        Signal(
            "effective_rank",
            "Effective rank",
            "dimensions in use",
            (0.0, 1.12 * size),
            (0.0, 0.05 * size),
            (size, f"all {dim}"),
        ),
        Signal(
            "alignment", "Alignment", "squared distance of a pair", (0.0, 2.3), None, (2.0, "unrelated pairs")
        ),
        Signal(
            "uniformity", "Uniformity", "log of mean potential", (-4.6, 0.0), (-1.0, 0.0), (-4.0, "uniform")
        ),
    )


def collapse_verdict(arm: Arm, *, dim: int) -> tuple[Verdict, str] | None:
    """What the last values say, or None where nothing was measured."""
    last = [(signal, arm.last(signal.key)) for signal in signals(dim) if signal.bad is not None]
    measured = [(signal, value) for signal, value in last if value is not None]
    if not measured:
        return None
    said = listing([f"{signal.title.lower()} {_number(value)}" for signal, value in measured])
    failed = [signal.title.lower() for signal, value in measured if _is_bad(signal, value)]
    if failed:
        return "bad", f"{label(arm.name)}: a sign of collapse in {listing(failed)}. At the end: {said}."
    return "good", f"{label(arm.name)}: no sign of collapse. At the end: {said}."


def _is_bad(signal: Signal, value: float) -> bool:
    return signal.bad is not None and signal.bad[0] <= value <= signal.bad[1]


def _number(value: float) -> str:
    return decimal(value, digits=0 if abs(value) >= 10 else 2)

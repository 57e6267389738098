"""What the page of a mining run is told beside its counts: the audit and the estimates, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final, runtime_checkable

from retrieval_cl.reporting.facts import Found, Interval


@final
@dataclass(frozen=True)
class Suspect:
    """A negative that may be a right answer, beside a known one.

    Attributes:
        why: The measure in a few words.
        sides: What the two are called.
    """

    query: str
    positive: Found
    negative: Found
    why: str
    sides: tuple[str, str] = ("known right answer", "negative")


@final
@dataclass(frozen=True)
class SuspectList:
    """Suspects of one kind, the most suspicious first; `note` says how they were found and how many exist."""

    name: str
    note: str
    suspects: Sequence[Suspect]


@final
@dataclass(frozen=True)
class AuditFacts:
    """What lies in the table.

    Attributes:
        per_query: Number of negatives -> queries with so many.
        per_source: Source -> (negatives, queries with at least one of them).
        copies: What is counted of duplicates -> how many, with its explanation.
        most_used: (passage, queries it is a negative of).
        judged: Evaluation split -> (negatives, distinct passages, those of the very same query).
        difference: To an older table: what is counted -> how many; empty where there is none.
        suspects: By kind.
    """

    per_query: Mapping[int, int]
    per_source: Mapping[str, tuple[int, int]]
    copies: Mapping[str, str] = field(default_factory=dict)
    most_used: Sequence[tuple[str, int]] = ()
    judged: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    difference: Mapping[str, str] = field(default_factory=dict)
    suspects: Sequence[SuspectList] = ()


@runtime_checkable
class MarginPoint(Protocol):
    """What one relative margin would do; `mining.rates.SweepPoint` is one."""

    @property
    def margin(self) -> float | None:
        """The relative margin; None is without one."""

    @property
    def kept(self) -> float:
        """Share of the candidates it leaves."""

    @property
    def rate(self) -> Interval:
        """False negatives among the negatives, with its interval."""


@final
@dataclass(frozen=True)
class EstimateFacts:
    """An estimate of the false-negative rate.

    Attributes:
        name: How it was made, in a few words.
        rate: With its interval.
        said: What the rate is and for whom it speaks.
        sweep: Over margins, from the one that keeps the most.
        bound: That the recommended margin keeps to.
        recommended: None where no margin does.
        configured: The margin of this run.
    """

    name: str
    rate: Interval
    said: str
    sweep: Sequence[MarginPoint] = ()
    bound: float = 0.05
    recommended: MarginPoint | None = None
    configured: float | None = None

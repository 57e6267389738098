"""What a report is told: plain frozen values, one for each thing a section shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final, runtime_checkable


@runtime_checkable
class Interval(Protocol):
    """A mean with its confidence interval; `evaluation.significance.Interval` is one."""

    @property
    def mean(self) -> float:
        """The mean."""

    @property
    def low(self) -> float:
        """The lower bound."""

    @property
    def high(self) -> float:
        """The upper bound."""


# system (bm25, control, mined, hybrid or any name) -> metric (recall@10 ...) -> mean over the test queries
Results = Mapping[str, Mapping[str, Interval]]


@final
@dataclass(frozen=True)
class DataFacts:
    """What was trained and measured on.

    Attributes:
        what: What the texts are, in a few words; empty where nothing is known.
        packages: Python package -> version, for the pydoc source; empty for others.
    """

    num_passages: int
    num_train_queries: int
    num_dev_queries: int = 0
    num_test_queries: int = 0
    what: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Comparison:
    """How much better system `system` is than system `than` on one metric, over the same test queries.

    Attributes:
        difference: Mean of (system - than) over queries, with its interval.
        p: Two-sided p-value of the paired permutation test.
    """

    system: str
    than: str
    metric: str
    difference: Interval
    p: float


@final
@dataclass(frozen=True)
class Found:
    """One hit as a reader sees it; `is_right` where it is judged relevant."""

    title: str
    snippet: str
    score: float
    is_right: bool = False


@final
@dataclass(frozen=True)
class Example:
    """A query and what several searches found for it.

    Attributes:
        found: Name of the search (BM25, before mining ...) -> its hits, best first.
        right: A passage that answers the query, shown above the lists; its score is not shown.
    """

    query: str
    found: Mapping[str, Sequence[Found]]
    right: Found | None = None


@runtime_checkable
class Counts(Protocol):
    """What one round of mining did; `mining.counts.MiningCounts` is one."""

    @property
    def num_queries(self) -> int:
        """Queries mined for."""

    @property
    def found(self) -> Mapping[str, int]:
        """Source -> candidates found."""

    @property
    def removed(self) -> Mapping[str, int]:
        """Rule -> candidates it removed that were kept until then."""

    @property
    def kept(self) -> int:
        """Candidates left after all rules."""

    @property
    def drawn(self) -> Mapping[str, int]:
        """Source -> negatives in the table."""

    @property
    def empty(self) -> int:
        """Places of the table that stayed empty."""

    @property
    def mean_rank(self) -> float | None:
        """Mean place of the drawn in the list of their source, 0 = best."""

    @property
    def score_quantiles(self) -> Mapping[float, float]:
        """Quantile (0 to 1) -> score of the drawn."""


@final
@dataclass(frozen=True)
class MiningRound:
    """One round of mining; `further` are more facts worth a line, such as the share of new negatives."""

    round: int
    counts: Counts
    seconds: float | None = None
    further: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Provenance:
    """Where a report comes from, so that it can be made again.

    Attributes:
        command: The command line that made it.
        made_at: Date and time, as shown.
        hardware: One line: processor, cores, memory, accelerator.
        settings: Setting -> value worth showing (learning rate, temperature, k1 and b of BM25 ...).
    """

    command: str
    made_at: str
    hardware: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

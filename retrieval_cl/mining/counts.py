"""What the miner did, in numbers: found, removed by each rule, drawn, short."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64, Num

from retrieval_cl.mining.config import Quota
from retrieval_cl.mining.rules import Candidates
from retrieval_cl.mining.table import SOURCES, NegativeTable

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class MiningCounts:
    """Counts of one round of mining.

    Attributes:
        num_queries: queries mined for.
        found: candidates found, per source.
        removed: candidates each rule removed that were kept until then, in the order of the rules.
        kept: candidates left after all rules.
        drawn: places of the table filled, per source.
        short_queries: queries with fewer candidates to draw than places for them.
        missing: places that no candidate could fill, filled at random or not.
        empty: places that stayed empty.
        mean_rank: of the drawn that have a rank; None where none has.
        rank_quantiles: quantile (0 to 1) -> rank of the drawn; empty where none has a rank.
        score_quantiles: quantile (0 to 1) -> score of the drawn that were found, not random.
        unmet: source -> places that its quota kept for it and it could not fill.
        widened: queries that were searched again, and deeper.
    """

    num_queries: int
    found: dict[str, int]
    removed: dict[str, int]
    kept: int
    drawn: dict[str, int]
    short_queries: int
    missing: int
    empty: int
    mean_rank: float | None
    rank_quantiles: dict[float, float]
    score_quantiles: dict[float, float]
    unmet: dict[str, int] = field(default_factory=dict)
    widened: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values; quantiles become keys such as "0.05"."""
        values = dataclasses.asdict(self)
        for name in ("rank_quantiles", "score_quantiles"):
            values[name] = {f"{quantile:g}": value for quantile, value in values[name].items()}
        return values


@dataclass
class Tally:
    """Adds up the counts over chunks of queries; `counts` closes it."""

    found: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    short_queries: int = 0
    missing: int = 0
    widened: int = 0

    def add(
        self,
        candidates: Candidates,
        removed: Mapping[str, Int64[np.ndarray, " Q"]],
        *,
        drawn: Int64[np.ndarray, " Q"],
        wanted: int,
    ) -> None:
        """Counts one chunk.

        Args:
            candidates: what was found, and what of it is left.
            removed: rule -> candidates of each query it removed.
            drawn: candidates of each query that were drawn.
            wanted: places of a query for candidates.
        """
        self.found.update(_per_source(candidates.sources[candidates.rows >= 0]))
        self.removed.update({name: int(numbers.sum()) for name, numbers in removed.items()})
        self.kept += int(np.count_nonzero(candidates.kept))
        self.short_queries += int(np.count_nonzero(drawn < wanted))
        self.missing += int((wanted - drawn).sum())

    def counts(self, table: NegativeTable, *, quotas: Mapping[str, Quota]) -> MiningCounts:
        """The counts of the whole round, whose result is `table`."""
        there = table.rows >= 0
        ranked = table.ranks >= 0
        ranks = table.ranks[ranked]
        return MiningCounts(
            num_queries=len(table),
            found=dict(self.found),
            removed=dict(self.removed),
            kept=self.kept,
            drawn=_per_source(table.sources[there]),
            short_queries=self.short_queries,
            missing=self.missing,
            empty=int(np.count_nonzero(~there)),
            mean_rank=float(ranks.mean()) if len(ranks) else None,
            rank_quantiles=_quantiles(ranks),
            score_quantiles=_quantiles(table.scores[ranked]),
            unmet={name: _unmet(table, name, least=quota.least) for name, quota in quotas.items()},
            widened=self.widened,
        )


def _unmet(table: NegativeTable, source: str, *, least: int) -> int:
    given = np.count_nonzero(table.sources == SOURCES.index(source), axis=1)
    return int(np.maximum(least - given, 0).sum())


def _per_source(sources: Num[np.ndarray, " V"]) -> dict[str, int]:
    numbers = np.bincount(sources, minlength=len(SOURCES))
    return {name: int(number) for name, number in zip(SOURCES, numbers, strict=True) if number}


def _quantiles(values: Num[np.ndarray, " V"]) -> dict[float, float]:
    if not len(values):
        return {}
    found = np.quantile(values.astype(np.float64), QUANTILES)
    return {quantile: float(value) for quantile, value in zip(QUANTILES, found, strict=True)}

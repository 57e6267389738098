"""How many mined negatives are right answers: by judgements held back, or by a teacher's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.noise import hash_noise
from retrieval_cl.mining.rates import MARGINS, Rate, SweepPoint, rate_over_queries
from retrieval_cl.mining.rules import contains, item_keys
from retrieval_cl.mining.table import NegativeTable

# Chance of its own, apart from that of any round's draws.
_STREAM = 77

MineWith = Callable[[float | None], tuple[NegativeTable, MiningCounts]]
"""relative margin -> the table of the queries that hold something back, mined with what is left of theirs."""


@dataclass(frozen=True, eq=False)
class HeldBack:
    """Queries with several right answers, some of which the miner is not told.

    Attributes:
        numbers: the queries, by their row of the positives, ascending.
        shown: positives left for the miner, at least one; row i for `numbers[i]`.
        hidden: positives held back, at least one.
    """

    numbers: Int64[np.ndarray, " S"]
    shown: Ragged
    hidden: Ragged

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class HeldBackRates:
    """What mining with judgements held back has found.

    Attributes:
        rate: hidden right answers among the negatives drawn. It speaks for the negatives of queries with
            several judged items, mined alike, of whose right answers the share that was hidden here is
            unjudged: it is proportional to `hidden / queries`, right answers unknown per query.
        drawn: hidden right answers that became a negative, among all hidden: the chance that an unjudged
            right answer is drawn. Where a query has u unjudged right answers and n negatives, about
            `u * drawn / n` of these are false; it grows with the share hidden where the margin goes by the
            weakest positive, which then is stronger.
        hidden: items held back.
        queries: that hold something back.
    """

    rate: Rate
    drawn: Rate
    hidden: int
    queries: int


def hold_back(
    positives: Ragged,
    *,
    queries: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " M"],
    share: float,
    seed: int,
    most: int,
) -> HeldBack:
    """Hides a share of the right answers of queries that have several; each keeps one at least.

    Copies of one item are hidden together. What is hidden depends on the seed and the query row alone.

    Args:
        positives: passage rows known to match query number i.
        queries: query row of each number.
        groups: passages with one number are the same item.
        share: of a query's items that is hidden, rounded, at least one and never all.
        seed: of the run.
        most: queries that hide something; where there are more, a seeded sample.
    """
    owner, place = np.unique(
        np.stack([positives.rows, groups[positives.values]], axis=1), axis=0, return_inverse=True
    )
    place = place.reshape(-1)
    line, item = owner[:, 0], owner[:, 1]
    sizes = np.bincount(line, minlength=len(positives))
    wanted = np.clip(np.rint(share * sizes).astype(np.int64), 1, np.maximum(sizes - 1, 1))
    noise = hash_noise(seed, 0, queries[line], item, stream=_STREAM)
    order = np.lexsort((noise, line))
    first = np.cumsum(sizes) - sizes
    rank = np.empty(len(line), dtype=np.int64)
    rank[order] = np.arange(len(line)) - first[line[order]]
    hidden = (rank < wanted[line])[place]
    numbers = np.flatnonzero(sizes >= 2)
    if len(numbers) > most:
        numbers = np.sort(np.random.default_rng(seed).choice(numbers, size=most, replace=False))
    return HeldBack(
        numbers=numbers,
        shown=_only(positives, ~hidden).take(numbers),
        hidden=_only(positives, hidden).take(numbers),
    )


def held_back_rates(
    table: NegativeTable, held: HeldBack, *, groups: Int64[np.ndarray, " M"]
) -> HeldBackRates | None:
    """Counts hidden right answers, or copies of them, among the negatives; None where none was drawn.

    The margins were measured from the answers left, so that hiding moves the weakest positive up now and
    then: the estimate is a little high for rules that go by the weakest.

    Args:
        table: mined for the queries of `held` in their order, with `held.shown`.
        held: what was hidden.
        groups: as for `hold_back`.
    """
    hidden = np.unique(item_keys(held.hidden.rows, held.hidden.values, groups=groups))
    lines, places = np.nonzero(table.rows >= 0)
    keys = item_keys(lines, table.rows[lines, places], groups=groups)
    false = contains(hidden, keys)
    num = len(held)
    rate = rate_over_queries(np.bincount(lines[false], minlength=num), np.bincount(lines, minlength=num))
    items = np.bincount(hidden // len(groups), minlength=num)
    met = np.bincount(np.unique(keys[false]) // len(groups), minlength=num)
    drawn = rate_over_queries(met, items)
    if rate is None or drawn is None:
        return None
    return HeldBackRates(rate, drawn, hidden=len(hidden), queries=num)


def sweep_held_back(
    mine: MineWith,
    held: HeldBack,
    *,
    groups: Int64[np.ndarray, " M"],
    margins: Sequence[float | None] = MARGINS,
) -> list[SweepPoint]:
    """Mines with each relative margin; a margin that leaves no negative gives no point.

    Args:
        mine: mines for the queries of `held`, in their order.
        held: what was hidden.
        groups: as for `hold_back`.
        margins: the first is the one that keeps the most.
    """
    points, most = [], 0
    for margin in margins:
        table, counts = mine(margin)
        most = max(most, counts.kept)
        found = held_back_rates(table, held, groups=groups)
        if found is not None:
            points.append(SweepPoint(margin, counts.kept / max(1, most), found.rate))
    return points


def teacher_rate(teacher: Float32[np.ndarray, "N n"], positive: Float32[np.ndarray, " N"]) -> Rate | None:
    """Share of the negatives that the teacher scores at or above the positive of their query.

    It speaks for the mined queries themselves, and is as good as the teacher: what it overrates counts as a
    false negative. Where the same scores have already removed such candidates (a margin with
    `mining.reranker`), it is 0 by construction and tells nothing.

    Args:
        teacher: of each negative; -inf in empty places.
        positive: of the positive that counts (weakest or strongest).
    """
    there = teacher > -np.inf
    above = there & (teacher >= positive[:, None])
    return rate_over_queries(np.count_nonzero(above, axis=1), np.count_nonzero(there, axis=1))


def sweep_teacher(
    table: NegativeTable,
    teacher: Float32[np.ndarray, "N n"],
    *,
    positive: Float32[np.ndarray, " N"],
    positive_teacher: Float32[np.ndarray, " N"],
    margins: Sequence[float | None] = MARGINS,
) -> list[SweepPoint]:
    """What relative margins of the vectors' score would leave of the table, and how the teacher judges that.

    Args:
        table: best mined without a margin; its scores are the vectors'.
        teacher: of each negative; -inf in empty places.
        positive: the vectors' score of the positive that counts.
        positive_teacher: the teacher's.
        margins: relative margins.
    """
    there, points = teacher > -np.inf, []
    for margin in margins:
        kept = there & _within(table.scores, positive, margin=margin)
        rate = teacher_rate(np.where(kept, teacher, np.float32(-np.inf)), positive_teacher)
        if rate is not None:
            points.append(SweepPoint(margin, np.count_nonzero(kept) / np.count_nonzero(there), rate))
    return points


def _within(
    scores: Float32[np.ndarray, "N n"], positive: Float32[np.ndarray, " N"], *, margin: float | None
) -> Bool[np.ndarray, "N n"]:
    if margin is None:
        return np.ones(scores.shape, dtype=bool)
    wide = positive.astype(np.float64)
    return scores <= (wide - margin * np.abs(wide))[:, None]


def _only(relation: Ragged, chosen: Bool[np.ndarray, " V"]) -> Ragged:
    before = np.concatenate([[0], np.cumsum(chosen)]).astype(np.int64)
    return Ragged(before[relation.offsets], relation.values[chosen])

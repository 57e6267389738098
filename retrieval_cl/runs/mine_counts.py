"""The counts of a run of the miner in words: removed, drawn, short of candidates, and what to loosen."""

from __future__ import annotations

from retrieval_cl.core.errors import InputError
from retrieval_cl.mining.counts import MiningCounts


def refuse_empty(counts: MiningCounts) -> None:
    """Raises InputError where no query has a negative, with what each rule removed."""
    if sum(counts.drawn.values()):
        return
    removed = {rule: number for rule, number in counts.removed.items() if number}
    told = ", ".join(f"{number:,} {rule}" for rule, number in removed.items()) or "none"
    found = sum(counts.found.values())
    raise InputError(
        f"no negative for any of {counts.num_queries:,} queries: of {found:,} candidates the rules removed: "
        f"{told}; {_loosen(counts)}"
    )


def count_lines(counts: MiningCounts) -> list[str]:
    """What a terminal is told of the counts."""
    removed = ", ".join(f"{number:,} {rule}" for rule, number in counts.removed.items() if number)
    drawn = ", ".join(f"{number:,} {source}" for source, number in counts.drawn.items())
    lines = [
        f"{counts.num_queries:,} queries, {sum(counts.found.values()):,} candidates",
        f"removed: {removed or 'none'}",
        f"drawn: {drawn or 'none'}; places left empty: {counts.empty:,}",
        *(f"{name}: {number:,}" for name, number in shortages(counts).items()),
    ]
    places = counts.empty + sum(counts.drawn.values())
    if places and 2 * counts.missing >= places:
        lines.append(f"candidates are missing for half of the places or more: {_loosen(counts)}")
    return lines


def shortages(counts: MiningCounts) -> dict[str, int]:
    """What was done, and what could not be done, for want of candidates; empty where nothing was short."""
    found = {"queries searched again, deeper": counts.widened}
    found |= {f"places that the quota of {name} could not fill": lack for name, lack in counts.unmet.items()}
    return {name: number for name, number in found.items() if number}


def _loosen(counts: MiningCounts) -> str:
    """What to do about the rule that removed the most."""
    removed = {rule: number for rule, number in counts.removed.items() if number}
    worst = max(removed, key=lambda rule: removed[rule], default="known")
    return _LOOSEN.get(worst, f"loosen mining.{worst}")


_LOOSEN = {
    "known": "raise mining.depth",
    "duplicate": "raise mining.depth",
    "rank_window": "lower mining.rank_min, or raise mining.rank_max and mining.depth",
    "margin": "lower mining.margin, set mining.positive to strongest, or raise mining.depth",
    "relative_margin": "lower mining.relative_margin, set mining.positive to strongest, or raise "
    "mining.depth",
}

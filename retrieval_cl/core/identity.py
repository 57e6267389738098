"""The id rule by sorted look-up: which columns carry an id an anchor knows, which private ones it sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from retrieval_cl.core.contrast import Bank, Contrast

LOOKUPS_AT_ONCE = 1 << 18


@dataclass(frozen=True, eq=False)
class Pairs:
    """(anchor, column) pairs: entry i pairs anchor `anchors[i]` with bank column `columns[i]`."""

    anchors: Int64[Tensor, " H"]
    columns: Int64[Tensor, " H"]

    def where(self, keep: Tensor | slice) -> Pairs:
        """The pairs that `keep` (a mask, an order or a slice) names."""
        return Pairs(self.anchors[keep], self.columns[keep])

    def keys(self, num_columns: int) -> Int64[Tensor, " H"]:
        """One number a pair; they ascend by anchor, then by column."""
        return self.anchors * num_columns + self.columns

    def to(self, device: torch.device) -> Pairs:
        """The pairs on a device; the host does not wait for the copy."""
        return Pairs(self.anchors.to(device, non_blocking=True), self.columns.to(device, non_blocking=True))

    def blocks(self, length: int) -> list[Pairs]:
        """The pairs in blocks of at most `length`; one empty block where there is none."""
        cut = zip(self.anchors.split(length), self.columns.split(length), strict=True)
        return [Pairs(anchors, columns) for anchors, columns in cut]


def known_hits(known: Int64[Tensor, "A P"], bank: Bank) -> Pairs:
    """All pairs of an anchor and a column that carries one of its known ids.

    Each known id is looked up once in the sorted ids of the bank: time and memory grow with A * P * log C and
    with the number of hits, never with A * C. An id known twice gives its pairs twice; -1 matches nothing.
    """
    sorted_ids, order = column_ids(bank).sort(stable=True)
    per_block = max(1, LOOKUPS_AT_ONCE // max(1, known.shape[1]))
    blocks = []
    for number, block in enumerate(known.split(per_block)):
        anchors, places = (block >= 0).nonzero(as_tuple=True)
        ids = block[anchors, places]
        low = torch.searchsorted(sorted_ids, ids)
        high = torch.searchsorted(sorted_ids, ids, right=True)
        entries, positions = _expand(low, high)
        blocks.append(Pairs(anchors[entries] + number * per_block, order[positions]))
    return join(blocks)


def target_pairs(contrast: Contrast) -> Pairs:
    """Each anchor with the column of its own positive, in the order of the anchors."""
    return Pairs(torch.arange(len(contrast.targets), device=contrast.targets.device), contrast.targets)


def positive_pairs(contrast: Contrast, matches: Pairs) -> Pairs:
    """Each anchor with every column it sees that is its target or carries an id it knows, each pair once."""
    num_columns = contrast.bank.num_columns
    keys = torch.unique(matches.keys(num_columns))
    targets = target_pairs(contrast).keys(num_columns)
    seen = shared_columns(contrast.bank)[keys % num_columns] | torch.isin(keys, targets)
    keys = keys[seen | torch.isin(keys, private_candidates(contrast).keys(num_columns))]
    return Pairs(keys // num_columns, keys % num_columns)


def private_negatives(contrast: Contrast, matches: Pairs) -> Pairs:
    """Each anchor with the private columns it names in `own` that are its negatives, each pair once.

    Args:
        contrast: whose `own` is read; columns of shared parts in it are left out.
        matches: the pairs that are no negatives: targets and known ids.
    """
    num_columns, shared = contrast.bank.num_columns, shared_columns(contrast.bank)
    keys = private_candidates(contrast).keys(num_columns)
    barred = matches.where(~shared[matches.columns]).keys(num_columns)
    keys = keys[~torch.isin(keys, barred)]
    return Pairs(keys // num_columns, keys % num_columns)


def private_candidates(contrast: Contrast) -> Pairs:
    """Each anchor with the private columns it names in `own`, padding left out, each pair once."""
    bank, own = contrast.bank, contrast.own
    if own is None or all(part.shared for part in bank.parts):
        return Pairs(contrast.targets[:0], contrast.targets[:0])
    anchors, places = (own >= 0).nonzero(as_tuple=True)
    named = Pairs(anchors, own[anchors, places])
    named = named.where((~shared_columns(bank) & (column_ids(bank) >= 0))[named.columns])
    keys = torch.unique(named.keys(bank.num_columns))
    return Pairs(keys // bank.num_columns, keys % bank.num_columns)


def column_ids(bank: Bank) -> Int64[Tensor, " C"]:
    """The item id of every column of the bank."""
    return torch.cat([part.ids for part in bank.parts])


def shared_columns(bank: Bank) -> Bool[Tensor, " C"]:
    """Which columns belong to shared parts."""
    return torch.cat([torch.full_like(part.ids, part.shared, dtype=torch.bool) for part in bank.parts])


def join(parts: list[Pairs]) -> Pairs:
    """The pairs of all `parts`, one after the other."""
    return Pairs(torch.cat([part.anchors for part in parts]), torch.cat([part.columns for part in parts]))


def _expand(
    low: Int64[Tensor, " L"], high: Int64[Tensor, " L"]
) -> tuple[Int64[Tensor, " H"], Int64[Tensor, " H"]]:
    # Entry i stands for the positions low[i] .. high[i] - 1.
    counts = high - low
    num_hits = int(counts.sum())
    starts = torch.repeat_interleave(low - counts.cumsum(0) + counts, counts, output_size=num_hits)
    entries = torch.arange(len(low), device=low.device)
    positions = torch.arange(num_hits, device=low.device) + starts
    return torch.repeat_interleave(entries, counts, output_size=num_hits), positions

"""The order of one pass over images: each once, copies of one item in different batches if possible."""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Int64


def epoch_order(
    rows: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    *,
    batch_size: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " N"]:
    """A random order of `rows` in which, where possible, no full batch holds two rows of one group.

    A row whose group its batch holds already changes places with a row of the next batch that can take it in
    exchange, beginning anywhere; where there is none it stays, and the ids tell that two rows are one item.

    Args:
        rows: what is ordered.
        groups: item of each row of `rows`.
        batch_size: rows of a batch; what is left over after the last full one is in no batch.
        generator: draws the order.
    """
    order: Int64[np.ndarray, " N"] = rows[places := generator.permutation(len(rows))]
    part_copies(order, groups[places], batch_size=batch_size, generator=generator)
    return order


def part_copies(
    order: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    *,
    batch_size: int,
    generator: np.random.Generator,
    fixed: int = 0,
) -> None:
    """Does in place what `epoch_order` says, from the given order on.

    Args:
        order: rows, batch after batch.
        groups: item of each row of `order`; changes with it.
        batch_size: rows of a batch.
        generator: draws where the search for an exchange begins.
        fixed: the first so many rows of each batch stay where they are.
    """
    num_batches = len(order) // batch_size
    if num_batches < 2 or np.unique(groups, return_counts=True)[1].max() == 1:
        return
    full = groups[: num_batches * batch_size].reshape(num_batches, batch_size)
    held = [Counter(batch.tolist()) for batch in full]
    for batch, place in zip(*np.nonzero(_stands_before(full)), strict=True):
        if place < fixed:
            continue
        first = int(generator.integers(num_batches))
        here = batch * batch_size + place
        group = int(groups[here])
        # An earlier exchange may have parted them already.
        if held[batch][group] == 1:
            continue
        there = _exchange(groups, held, int(batch), group, places=range(fixed, batch_size), first=first)
        if there is None:
            continue
        other = int(groups[there])
        held[batch].subtract({group: 1, other: -1})
        held[there // batch_size].subtract({other: 1, group: -1})
        order[[here, there]], groups[[here, there]] = order[[there, here]], groups[[there, here]]


def _stands_before(batches: Int64[np.ndarray, "S B"]) -> np.ndarray:
    """Whether a row's group stands at an earlier place of its batch."""
    ranks = np.argsort(batches, axis=1, kind="stable")
    ordered = np.take_along_axis(batches, ranks, axis=1)
    again = np.zeros(batches.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.zeros(batches.shape, dtype=bool)
    np.put_along_axis(found, ranks, again, axis=1)
    return found


def _exchange(
    groups: Int64[np.ndarray, " N"],
    held: list[Counter[int]],
    batch: int,
    group: int,
    *,
    places: range,
    first: int,
) -> int | None:
    """The place of a row for `batch`, at one of `places` of another batch that lacks `group`."""
    for step in range(len(held)):
        other = (first + step) % len(held)
        if other == batch or held[other][group]:
            continue
        for place in places:
            if not held[batch][int(groups[there := other * places.stop + place])]:
                return there
    return None

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
    order = generator.permutation(len(rows))
    num_batches = len(rows) // batch_size
    shared = np.unique(groups, return_counts=True)[1].max(initial=0) > 1
    if shared and num_batches > 1:
        _part(order, groups[order], batch_size=batch_size, num_batches=num_batches, generator=generator)
    return rows[order]


def _part(
    order: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    *,
    batch_size: int,
    num_batches: int,
    generator: np.random.Generator,
) -> None:
    """Changes `order` in place; `groups` are those of its rows."""
    full = groups[: num_batches * batch_size].reshape(num_batches, batch_size)
    held = [Counter(batch.tolist()) for batch in full]
    for batch, place in zip(*np.nonzero(_stands_before(full)), strict=True):
        first = int(generator.integers(num_batches))
        here = batch * batch_size + place
        group = int(groups[here])
        # An earlier exchange may have parted them already.
        if held[batch][group] == 1:
            continue
        there = _exchange(groups, held, int(batch), group, batch_size=batch_size, first=first)
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
    batch_size: int,
    first: int,
) -> int | None:
    """The place of a row that can stand in `batch`, in another batch that lacks `group`."""
    for step in range(len(held)):
        other = (first + step) % len(held)
        if other == batch or held[other][group]:
            continue
        start = other * batch_size
        for place in range(start, start + batch_size):
            if not held[batch][int(groups[place])]:
                return place
    return None

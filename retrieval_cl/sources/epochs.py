"""What training sources share: steps over epochs, slices of ranks, seeded generators, rows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged


def walk(
    order: Callable[[int], Int64[np.ndarray, " N"]],
    *,
    steps_per_epoch: int,
    batch_size: int,
    start: int,
    stop: int,
) -> Iterator[tuple[int, Int64[np.ndarray, " B"]]]:
    """Number and rows of each step of the run, its first step being 0; what is left of an epoch is dropped.

    Args:
        order: epoch -> the order of its rows.
        steps_per_epoch: full batches of one.
        batch_size: rows of a batch.
        start: the first step.
        stop: the step after the last.
    """
    step = start
    while step < stop:
        epoch, place = divmod(step, steps_per_epoch)
        rows = order(epoch)
        for begin in range(place, min(steps_per_epoch, place + stop - step)):
            yield step, rows[begin * batch_size : (begin + 1) * batch_size]
            step += 1


def slice_of_rank(batch_size: int, *, rank: int, world: int) -> slice:
    """The rows of each batch that a rank gives.

    Raises:
        InputError: the ranks cannot have equal parts.
    """
    if batch_size % world:
        raise InputError(f"batch size {batch_size} cannot be cut into {world} equal parts, one for each rank")
    share = batch_size // world
    return slice(rank * share, (rank + 1) * share)


def host_generator(key: Sequence[int]) -> torch.Generator:
    """A generator on the host that is a pure function of `key`, as `np.random.default_rng(key)` is."""
    seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def take_tokens(tokens: Ragged, rows: Int64[np.ndarray, " R"]) -> Ragged:
    """Token rows; a row of -1 gives the first token of all, an input that a tower can embed."""
    none = rows < 0
    rows = np.where(none, 0, rows)
    starts = np.where(none, 0, tokens.offsets[rows])
    counts = np.where(none, 1, tokens.offsets[rows + 1] - tokens.offsets[rows])
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    index = np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], counts)
    values: Int[np.ndarray, " V"] = tokens.values[index]
    return Ragged(offsets, values)

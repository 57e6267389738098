"""The leak check: a perfect encoder, run through method, queue and gather, must reach the floor of the loss.

A copy of an anchor's positive among its negatives, a target column of another row, a temperature that is not
applied: none of these raises an error, each costs quality in silence. With a perfect encoder each shows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from time import perf_counter

import torch
from torch import nn

from retrieval_cl.core.floors import bare, floor_of
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.ranks import num_ranks, rank, refuse_uneven
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Method
from retrieval_cl.training.floor_check import FloorCheck
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.perfect import PerfectEncoder, first_anchors
from retrieval_cl.training.run import Callback, Run, Source

# Over all ranks. Time and memory grow with its square; what leaks for none of so many leaks for hardly any.
MAX_ANCHORS = 128


class CheckLeaks(Callback):
    """Checks the first batches of each round, before a step is taken. Comes after `Remine`."""

    def __init__(self, source: Source, log: MetricsLog) -> None:
        self._source = source
        self._log = log

    def on_round(self, run: Run) -> None:
        """Raises InputError where something leaks; else says in the log what was checked."""
        started = perf_counter()
        batches = self._source.batches(
            run.negatives,
            seed=run.config.seed,
            round=run.round,
            num_steps=run.round_steps[run.round],
            start_step=run.cursor,
            rank=rank(),
            world=num_ranks(),
            steps_before=run.steps_before,
        )
        first = list(islice(batches, 2))
        for batch in first:
            refuse_uneven(batch.count_rows(run.method.views), device=run.device)
        checked = check_leaks(run.method, first)
        if run.cursor == 0:
            self._log.append(
                run.step,
                round=run.round,
                leaks="none" if checked else "not checked: the objective has no known floor",
                leak_check_seconds=perf_counter() - started,
            )


@torch.no_grad()
def check_leaks(method: Method, batches: Sequence[Batch]) -> bool:
    """Compares the loss of a perfect encoder with the floor; nothing of the method is changed.

    The first batch meets an empty queue, then one that holds its own rows once and twice; the other batches
    meet what the first left there. Of each batch the first `MAX_ANCHORS` anchors are taken, in float64.
    A copy of the positive among the negatives is seen at any scale; a candidate of another item too many or
    too few weighs exp(-scale), and is seen up to a scale of about 65.

    Args:
        method: on its device. Its queues are looked at empty, whatever they hold.
        batches: this rank's slice of the next batches; at least one.

    Returns:
        False where the objective has no known floor, so that nothing was checked.

    Raises:
        InputError: a loss is not at its floor: one line that names the part of the bank that leaks.
    """
    objective = bare(method.objective)
    floor = floor_of(objective)
    if floor is None:
        return False
    device = next(method.parameters()).device
    batches = [first_anchors(batch, max(2, MAX_ANCHORS // num_ranks())) for batch in batches]
    encoder = PerfectEncoder.of(batches, views=method.views, device=device)
    check = FloorCheck(method, encoder, objective, floor)
    check.objective_reaches_floor()
    scratch = _scratch_copy(method, dim=encoder.dim, batches=batches)
    for batch, when in _scenes(batches):
        embeddings = encoder.embed(batch, views=method.views, embeddings=method.embeddings)
        for contrast in scratch.contrasts(embeddings, batch):
            check.contrast_reaches_floor(contrast, batch, when=when)
        scratch.after_step(embeddings, batch, 1.0)
    return True


def _scenes(batches: Sequence[Batch]) -> Iterator[tuple[Batch, str]]:
    first, *others = batches
    yield first, "before any step"
    yield first, "with this batch in the queue"
    yield first, "with this batch twice in the queue"
    yield from ((batch, "with other batches in the queue") for batch in others)


def _scratch_copy(method: Method, *, dim: int, batches: Sequence[Batch]) -> Method:
    """A copy whose state may change: its queues are empty and take `dim`, its matrices hold nothing."""
    device = next(method.parameters()).device
    rows = 2 * num_ranks() * sum(len(view.ids) for batch in batches for view in batch.views.values())
    stand_ins: dict[int, nn.Module | nn.Parameter] = {
        id(module): Queue(min(module.size, rows), dim, dtype=torch.float64).to(device)
        for module in method.modules()
        if isinstance(module, Queue)
    }
    # No tower is called here, and a moving average of nothing costs nothing.
    stand_ins |= {
        id(weights): nn.Parameter(torch.empty_like(weights, device="meta"), requires_grad=False)
        for weights in method.parameters()
        if weights.ndim >= 2
    }
    return copy.deepcopy(method, stand_ins)

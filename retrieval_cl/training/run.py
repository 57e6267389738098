"""The state of one training run: what the loop moves on and a checkpoint holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.statistics import Statistics
from retrieval_cl.core.views import Batch
from retrieval_cl.methods.method import Embeddings, Method
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.training.config import TrainingConfig


@runtime_checkable
class Source(Protocol):
    """Gives the batches of a round; `sources.text_pairs.TextPairs` is one."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the data; a ragged last batch is dropped."""

    def batches(
        self,
        negatives: NegativeTable | None,
        *,
        seed: int,
        round: int,
        num_steps: int,
        start_step: int,
        rank: int,
        world: int,
        steps_before: int,
    ) -> Iterator[Batch]:
        """The batches of steps `start_step` to `num_steps - 1` of a round: this rank's slice of each.

        `steps_before` are the steps of all rounds before: the order of the data runs on over the rounds.
        A pure function of its arguments, so that a resumed run meets the same batches; as many on every rank.
        """


@dataclass
class Run:
    """Where a run stands.

    Attributes:
        method: what is trained.
        optimizer: over the method's parameters.
        config: the settings of training.
        round_steps: steps of each round; `cut_round` changes those to come.
        step: optimiser steps done.
        negatives: the table of the current round; None while negatives come from the batch alone.
        seconds: time spent in the loop itself, without callbacks (mining, evaluation, checkpoints); on a GPU
            it is true after watched steps, since in between the loop runs ahead of the device.
        grad_norm: norm of the last step's gradients, before they were limited; on the device.
        dev: the newest evaluation, by metric.
        statistics: of the last step's comparison, where that step is logged; else None.
        planned: `round_steps` as they were before the first step.
    """

    method: Method
    optimizer: Optimizer
    config: TrainingConfig
    round_steps: tuple[int, ...]
    step: int = 0
    negatives: NegativeTable | None = None
    seconds: float = 0.0
    grad_norm: Tensor = field(default_factory=lambda: torch.zeros(()))
    dev: dict[str, float] = field(default_factory=dict)
    statistics: Statistics | None = None
    planned: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.planned = self.round_steps

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return sum(self.round_steps)

    @property
    def round(self) -> int:
        """The round the next step belongs to; the last one when all steps are done."""
        return self._place(self.step)[0]

    @property
    def cursor(self) -> int:
        """Steps of the current round that are done."""
        return self._place(self.step)[1]

    @property
    def steps_before(self) -> int:
        """Steps of all rounds before the current one."""
        return self.step - self.cursor

    @property
    def last_round(self) -> int:
        """The round of the last step that is done; 0 before the first."""
        return self._place(max(0, self.step - 1))[0]

    @property
    def round_end(self) -> int:
        """The step after which the current round ends."""
        return sum(self.round_steps[: self.round + 1])

    @property
    def progress(self) -> float:
        """Share of the steps done, 0 to 1."""
        return self.step / self.steps

    @property
    def logs_next(self) -> bool:
        """Whether the next step writes a line of metrics."""
        step, ends_round = self.step + 1, self.cursor + 1 == self.round_steps[self.round]
        return ends_round or step % self.config.log_every == 0 or step % self.config.health_every == 0

    @property
    def watches_next(self) -> bool:
        """Whether something looks at the run after the next step, so that the loop waits for the device."""
        return self._watches(self.step + 1, round_end=self.round_end)

    @property
    def is_watched(self) -> bool:
        """Whether something looks at the run after this step: metrics, evaluation, mining, a checkpoint."""
        return self._watches(self.step, round_end=sum(self.round_steps[: self.last_round + 1]))

    def is_due(self, every: int | None) -> bool:
        """Whether what comes every so many steps, and at the end of each round, is due after this step."""
        return self.cursor == 0 or self.step == self.steps or (every is not None and self.step % every == 0)

    @property
    def device(self) -> torch.device:
        """Where the method's parameters lie."""
        return next(self.method.parameters()).device

    def advance(self, seconds: float) -> None:
        """Counts one step that took this long."""
        self.step += 1
        self.seconds += seconds

    def cut_round(self, at: int) -> None:
        """The current round ends after step `at`; the steps left are cut anew, every `remine_every`."""
        assert self.config.remine_every is not None and self.step <= at < self.round_end, (self.step, at)
        before = self.round_steps[: self.round]
        assert at > sum(before), "a round has a step"
        self.round_steps = (*before, at - sum(before), *_cut(self.steps - at, self.config.remine_every))

    def _watches(self, step: int, *, round_end: int) -> bool:
        config = self.config
        looks = (config.log_every, config.health_every, config.eval_every, config.save_every)
        if any(every is not None and step % every == 0 for every in (*looks, config.probe_every)):
            return True
        return step in (round_end, round_end - (config.swap_after or 0))

    def _place(self, step: int) -> tuple[int, int]:
        left = step
        for number, steps in enumerate(self.round_steps[:-1]):
            if left < steps:
                return number, left
            left -= steps
        return len(self.round_steps) - 1, left


class Callback:
    """What happens beside the loop. Does nothing unless overridden; the order of callbacks matters."""

    def on_round(self, run: Run) -> None:
        """Before a round, and once more when a run is resumed within it."""

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """After a step; `run.step` counts it already. `loss` is the mean over all ranks."""

    def on_interrupt(self, run: Run) -> Path | None:
        """The run is told to stop between two steps; returns where it kept a checkpoint, if it did."""

    def on_stop(self, run: Run) -> None:
        """Once, however the loop ends."""

    def on_saved(self, oldest: int) -> None:
        """A checkpoint was saved; those of steps before `oldest` are gone."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it, as JSON values."""
        return {}

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Takes over a state that `state` gave; `run` is loaded already."""


def plan_rounds(config: TrainingConfig, *, steps_per_epoch: int) -> tuple[int, ...]:
    """Steps of each round.

    `rounds`, with the epochs or the steps, say how long training is. Without `remine_every` that is the plan.
    With it, all steps from round `first_mined_round` on are cut anew into rounds of so many steps, the last
    one what is left: `first_mined_round + ceil(mined steps / remine_every)` rounds in all.

    Raises:
        InputError: the data give no whole batch, or rounds are too short or too long for a setting.
    """
    if steps_per_epoch < 1:
        raise InputError(
            f"training.batch_size {config.batch_size}: more than there are training queries; lower it"
        )
    rounds = _even_rounds(config) if config.steps is not None else _epoch_rounds(config, steps_per_epoch)
    if config.remine_every is not None:
        first, mined = config.first_mined_round, sum(rounds[config.first_mined_round :])
        # With min_overlap a long period is the bound for a run that does not drift.
        if config.remine_every >= mined and config.min_overlap is None:
            raise InputError(
                f"training.remine_every {config.remine_every}: no table would be replaced, {mined} steps are "
                "trained on mined negatives in all; lower it, or remove it"
            )
        rounds = (*rounds[:first], *_cut(mined, config.remine_every))
    _check_swaps(rounds, config)
    return rounds


def _even_rounds(config: TrainingConfig) -> tuple[int, ...]:
    assert config.steps is not None
    bounds = [config.steps * number // config.rounds for number in range(config.rounds + 1)]
    return tuple(high - low for low, high in itertools.pairwise(bounds))


def _epoch_rounds(config: TrainingConfig, steps_per_epoch: int) -> tuple[int, ...]:
    first = config.epochs_per_round if config.first_round_epochs is None else config.first_round_epochs
    epochs: Sequence[float] = [first] + [config.epochs_per_round] * (config.rounds - 1)
    return tuple(max(1, round(share * steps_per_epoch)) for share in epochs)


def _cut(steps: int, every: int) -> tuple[int, ...]:
    """Pieces of `every` steps, the last one what is left."""
    return (every,) * (steps // every) + ((steps % every,) if steps % every else ())


def _check_swaps(rounds: tuple[int, ...], config: TrainingConfig) -> None:
    """Raises InputError where a snapshot would be taken before the table of the one before is in use."""
    if config.swap_after is None:
        return
    lengths = list(rounds[max(0, config.first_mined_round - 1) : -1])
    lengths += [config.remine_every] if config.remine_every is not None else []
    if not lengths:
        raise InputError(
            "training.background has no effect: the only table is mined before the first step; "
            "remove it, or set training.remine_every"
        )
    if config.swap_after >= min(lengths):
        raise InputError(
            f"training.swap_after {config.swap_after}: a round in which the next table is mined has only "
            f"{min(lengths)} steps; lower swap_after below that"
        )

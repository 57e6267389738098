"""What happens beside the loop: evaluation, checkpoints; and `Remine`, which has a file of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import rank
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.training.checkpoint import list_checkpoints, save_checkpoint
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.remine import Remine
from retrieval_cl.training.run import Callback, Run

__all__ = ["Evaluate", "Remine", "Save"]


class Evaluate(Callback):
    """Evaluates every few steps and at the end of each round; keeps the best.

    Attributes:
        best: the greatest value of the metric so far; None before the first.
        best_step: where it was reached.
    """

    def __init__(
        self,
        evaluate: Callable[[Run], Mapping[str, float]],
        log: MetricsLog,
        *,
        metric: str,
        keep_best: Callable[[Run], None] | None = None,
    ) -> None:
        """`keep_best` is called with the run each time `metric` reaches a new best value."""
        self._evaluate = evaluate
        self._log = log
        self._metric = metric
        self._keep_best = keep_best
        self.best: float | None = None
        self.best_step: int | None = None

    def on_round(self, run: Run) -> None:
        """Evaluates the untrained weights, if wanted."""
        if run.step == 0 and run.config.eval_at_start:
            self._measure(run)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Evaluates where it is due."""
        if run.is_due(run.config.eval_every):
            self._measure(run)

    def state(self) -> dict[str, Any]:
        """The best value and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """See `state`."""
        self.best, self.best_step = state["best"], state["best_step"]

    def _measure(self, run: Run) -> None:
        run.dev = dict(self._evaluate(run))
        if self._metric not in run.dev:
            raise InputError(f"metric '{self._metric}': not measured; valid: {', '.join(sorted(run.dev))}")
        self._log.append(run.step, round=run.last_round, dev=run.dev)
        if self.best is None or run.dev[self._metric] > self.best:
            self.best, self.best_step = run.dev[self._metric], run.step
            if self._keep_best is not None:
                self._keep_best(run)


class Save(Callback):
    """Saves a checkpoint every few steps, at the end of each round and on Ctrl-C; keeps the newest few.

    Must come last among the callbacks: a checkpoint holds what the others know after this step.
    """

    def __init__(self, folder: Path, callbacks: Sequence[Callback]) -> None:
        """`callbacks` are the others, whose state is saved too."""
        self.folder = folder
        self._callbacks = callbacks

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Saves where it is due."""
        if run.is_due(run.config.save_every):
            self._save(run)

    def on_interrupt(self, run: Run) -> Path:
        """Saves the step that was just finished."""
        return self._save(run)

    def _save(self, run: Run) -> Path:
        path = save_checkpoint(self.folder, run, callbacks=self._callbacks)
        if rank() == 0:
            for _, old in list_checkpoints(self.folder)[: -run.config.keep_checkpoints]:
                shutil.rmtree(old)
        oldest = list_checkpoints(self.folder)[0][0] if rank() == 0 else 0
        for callback in self._callbacks:
            callback.on_saved(oldest)
        return path

"""Watches a run: metrics on disk, and a stop with a reason where it diverges or collapses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.health import Health, measure_health
from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, Run
from retrieval_cl.training.watch import Watch

HEALTH_ROWS = 1024


class TrainingFailed(RuntimeError):
    """Going on would be a waste; the message is one line with the signs and what to change."""


@final
class Diverged(TrainingFailed):
    """The loss or the gradient's norm is no longer a finite number."""


@final
class Collapse(TrainingFailed):
    """A fault that `training.diagnosis` lists: the vectors collapse, or learn little."""


class Monitor(Callback):
    """Writes loss, rate, scale, speed, gradient norm and statistics of the comparison every few steps.

    Health signals come now and then.

    Loss and speed are means over the steps since the line before. Comes first among callbacks: a broken step
    must be noticed before anything else looks at the run. Losses and norms stay on the device until a watched
    step, so that the loop need not wait for it; a broken step is noticed so much later, and named.
    """

    def __init__(self, log: MetricsLog) -> None:
        self._log = log
        self._unread: list[tuple[int, Tensor, Tensor]] = []
        self._losses: list[float] = []
        self._anchors = 0
        self._seconds = 0.0
        self._watch = Watch()

    def on_round(self, run: Run) -> None:
        """Starts an empty file at step 0."""
        if run.step == 0:
            self._log.cut(0)
        self._watch.start(run)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Raises Diverged or Collapse; else may write a line."""
        anchors, positives = run.method.sides(embeddings)
        self._unread.append((run.step, loss, run.grad_norm))
        self._anchors += len(anchors) * num_ranks()
        if not run.is_watched:
            return
        self._read(run.config)
        health = None
        if run.step % run.config.health_every == 0:
            anchors, positives = anchors[:HEALTH_ROWS], positives[:HEALTH_ROWS]
            health = measure_health(anchors, positives)
            self._judge(run, health, anchors=anchors, positives=positives)
        if run.step % run.config.log_every == 0 or run.is_due(None) or health is not None:
            self._write(run, health)

    def on_stop(self, run: Run) -> None:
        """Leaves the optimiser as it was."""
        self._watch.stop()

    def on_interrupt(self, run: Run) -> None:
        """Raises Diverged where a step since the last watched one is broken: it must not be saved."""
        self._read(run.config)

    def state(self) -> dict[str, Any]:
        """The last looks, what the next line has to sum up, and how long the file is."""
        assert not self._unread, "a checkpoint of a step that was not watched"
        return {
            "watch": self._watch.state(),
            "losses": self._losses,
            "anchors": self._anchors,
            "seconds": self._seconds,
            "log_size": self._log.size(),
        }

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Also drops the lines that will be written again."""
        self._watch.load_state(state["watch"])
        self._losses = list(state["losses"])
        self._anchors, self._seconds, self._unread = state["anchors"], state["seconds"], []
        self._log.cut(state["log_size"])

    def _write(self, run: Run, health: Health | None) -> None:
        fields: dict[str, Any] = {
            "round": run.last_round,
            "loss": sum(self._losses) / len(self._losses),
            "lr": max(group["lr"] for group in run.optimizer.param_groups),
            "scale": _scale(run.method),
            "grad_norm": float(run.grad_norm),
            "pairs_per_second": self._anchors / max(run.seconds - self._seconds, 1e-9),
            "seconds": run.seconds,
        }
        if run.statistics is not None:
            fields["comparison"] = asdict(run.statistics)
        if health is not None:
            fields["health"] = asdict(health)
            fields["signals"] = self._watch.further()
        self._log.append(run.step, **fields)
        self._losses, self._anchors, self._seconds = [], 0, run.seconds

    def _judge(
        self, run: Run, health: Health, *, anchors: Float[Tensor, "A D"], positives: Float[Tensor, "A D"]
    ) -> None:
        fault = self._watch.look(run, health, loss=self._losses[-1], anchors=anchors, positives=positives)
        if fault is not None:
            self._write(run, health)
            raise Collapse(str(fault))

    def _read(self, config: TrainingConfig) -> None:
        """Takes the values of the steps so far off the device. Raises Diverged at the first broken one."""
        values = [torch.stack([loss.double(), norm.double()]) for _, loss, norm in self._unread]
        read = torch.stack(values).tolist() if values else []
        for (step, _, _), (loss, norm) in zip(self._unread, read, strict=True):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise Diverged(_describe_divergence(step, loss, norm, config))
            self._losses.append(loss)
        self._unread = []


def _describe_divergence(step: int, loss: float, grad_norm: float, config: TrainingConfig) -> str:
    return (
        f"step {step} diverged: loss {loss:g}, gradient norm {grad_norm:g}; "
        f"lower training.lr (now {config.lr:g}), lengthen training.warmup_share, or set "
        "training.precision and method.loss_precision to fp32"
    )


def _temperatures(method: nn.Module) -> Iterator[Temperature]:
    return (module for module in method.modules() if isinstance(module, Temperature))


def _scale(method: nn.Module) -> float | None:
    return next((float(temperature.scale().detach()) for temperature in _temperatures(method)), None)

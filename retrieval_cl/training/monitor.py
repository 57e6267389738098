"""Watches a run: metrics on disk, and a stop with a reason where it diverges or collapses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor, nn

from retrieval_cl.core.health import Health, measure_health
from retrieval_cl.core.ranks import any_rank, num_ranks
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, Run

# Low on purpose: an untrained transformer starts near 0.1, and vectors around a common mean are no collapse.
MIN_STD_RATIO = 0.05
MIN_EFFECTIVE_RANK = 1.5
MIN_ROWS = 8
PATIENCE = 3
HEALTH_ROWS = 1024


class TrainingFailed(RuntimeError):
    """Going on would be a waste; the message is one line with the signs and what to change."""


@final
class Diverged(TrainingFailed):
    """The loss or the gradient's norm is no longer a finite number."""


@final
class Collapse(TrainingFailed):
    """All inputs get nearly the same vector."""


class Monitor(Callback):
    """Writes loss, rate, scale, speed, gradient norm and statistics of the comparison every few steps.

    Health signals come now and then.

    Loss and speed are means over the steps since the line before. Comes first among callbacks: a broken step
    must be noticed before it is saved.
    """

    def __init__(self, log: MetricsLog) -> None:
        self._log = log
        self._losses: list[float] = []
        self._anchors = 0
        self._seconds = 0.0
        self._unhealthy = 0

    def on_round(self, run: Run) -> None:
        """Starts an empty file at step 0."""
        if run.step == 0:
            self._log.cut(0)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Raises Diverged or Collapse; else may write a line."""
        anchors, positives = (embeddings[kind] for kind in run.method.views[:2])
        self._losses.append(float(loss))
        self._anchors += len(anchors) * num_ranks()
        if not math.isfinite(self._losses[-1]) or not math.isfinite(run.grad_norm):
            raise Diverged(self._describe_divergence(run))
        health = None
        if run.step % run.config.health_every == 0:
            health = measure_health(anchors[:HEALTH_ROWS], positives[:HEALTH_ROWS])
            self._judge(run, health, shape=anchors[:HEALTH_ROWS].shape)
        if run.step % run.config.log_every == 0 or run.is_due(None) or health is not None:
            self._write(run, health)

    def state(self) -> dict[str, Any]:
        """How many looks in a row were bad, what the next line has to sum up, and how long the file is."""
        return {
            "unhealthy": self._unhealthy,
            "losses": self._losses,
            "anchors": self._anchors,
            "seconds": self._seconds,
            "log_size": self._log.size(),
        }

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Also drops the lines that will be written again."""
        self._unhealthy, self._losses = state["unhealthy"], list(state["losses"])
        self._anchors, self._seconds = state["anchors"], state["seconds"]
        self._log.cut(state["log_size"])

    def _write(self, run: Run, health: Health | None) -> None:
        fields: dict[str, Any] = {
            "round": run.last_round,
            "loss": sum(self._losses) / len(self._losses),
            "lr": max(group["lr"] for group in run.optimizer.param_groups),
            "scale": _scale(run.method),
            "grad_norm": run.grad_norm,
            "pairs_per_second": self._anchors / max(run.seconds - self._seconds, 1e-9),
            "seconds": run.seconds,
        }
        if run.statistics is not None:
            fields["comparison"] = asdict(run.statistics)
        if health is not None:
            fields["health"] = asdict(health)
        self._log.append(run.step, **fields)
        self._losses, self._anchors, self._seconds = [], 0, run.seconds

    def _judge(self, run: Run, health: Health, *, shape: torch.Size) -> None:
        num_rows, dim = shape
        bad = num_rows >= MIN_ROWS and (
            health.std_ratio < MIN_STD_RATIO or health.effective_rank < MIN_EFFECTIVE_RANK
        )
        # One rank's batch may look odd; all stop together or none.
        self._unhealthy = self._unhealthy + 1 if any_rank(bad, device=run.device) else 0
        if self._unhealthy >= PATIENCE:
            self._write(run, health)
            raise Collapse(
                f"collapse at step {run.step}: in {PATIENCE} looks in a row nearly all inputs got one vector "
                f"(std ratio {health.std_ratio:.3f}, sound is near 1; "
                f"effective rank {health.effective_rank:.1f}, at most {min(num_rows - 1, dim)}); "
                f"lower training.lr (now {run.config.lr:g}) or lengthen training.warmup_share, "
                "and check that a batch's positives are not all the same text"
            )

    def _describe_divergence(self, run: Run) -> str:
        return (
            f"step {run.step} diverged: loss {self._losses[-1]:g}, gradient norm {run.grad_norm:g}; "
            f"lower training.lr (now {run.config.lr:g}), lengthen training.warmup_share, or set "
            "training.precision and method.loss_precision to fp32"
        )


def _temperatures(method: nn.Module) -> Iterator[Temperature]:
    return (module for module in method.modules() if isinstance(module, Temperature))


def _scale(method: nn.Module) -> float | None:
    return next((float(temperature.scale().detach()) for temperature in _temperatures(method)), None)

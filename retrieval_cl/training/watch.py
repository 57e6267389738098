"""Looks at a run every few steps: measures the signals that `training.diagnosis` reads."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.floors import bare
from retrieval_cl.core.health import Health, ema_gap, gradient_norms, queue_state
from retrieval_cl.core.momentum import MomentumTwin
from retrieval_cl.core.queue import Queue
from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.training.diagnosis import MEMORY, Fault, diagnose
from retrieval_cl.training.run import Run
from retrieval_cl.training.signals import Signals

# Numbers of each matrix that are compared before and after a step: enough for a norm, and soon copied.
SAMPLE = 2**16
# Signs that stand nowhere else in a line of metrics.
FURTHER = ("pair_order", "step_size", "growth", "ema_gap", "queue_fill", "queue_age")


@final
class Watch:
    """Measures, keeps the last few looks, and says what they mean. Waits for the device where it looks.

    The sizes of gradients and of a step are gone when the step is done: hooks of the optimiser take them, on
    the device and at looks alone.
    """

    def __init__(self) -> None:
        self._looks: list[Signals] = []
        self._first_norm: float | None = None
        self._hooks: list[Any] = []
        self._before: list[Tensor] = []
        self._gradients: dict[str, Tensor] = {}
        self._step_size: Tensor | None = None

    @property
    def last(self) -> Signals | None:
        """The last look."""
        return self._looks[-1] if self._looks else None

    def start(self, run: Run) -> None:
        """Measures the first weights and places the hooks; once more is no harm."""
        if self._hooks:
            return
        weights = _matrices(run)
        if self._first_norm is None:
            self._first_norm = float(_norm(_samples(weights)))

        def before(*arguments: Any) -> None:
            if _is_due(run):
                self._gradients = gradient_norms(_heads(run.method))
                self._before = [sample.clone() for sample in _samples(weights)]

        def after(*arguments: Any) -> None:
            if self._before:
                moved = torch._foreach_sub(_samples(weights), self._before)
                self._step_size = _norm(moved) / _norm(self._before)
                self._before = []

        optimizer = run.optimizer
        self._hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def stop(self) -> None:
        """Takes the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def look(
        self,
        run: Run,
        health: Health,
        *,
        loss: float,
        anchors: Float[Tensor, "A D"],
        positives: Float[Tensor, "A D"],
    ) -> Fault | None:
        """Measures after a step and says what is wrong, if something is; alike on all ranks.

        Args:
            run: after the step.
            health: of this rank's anchors and positives.
            loss: of the step.
            anchors: the rows that `health` was measured on.
            positives: the same.
        """
        measured = _vectors(health, anchors, positives, device=run.device)
        measured |= _compared(run) | _state(run)
        rows, dim = anchors.shape
        now = Signals(
            step=run.step,
            warmup=round(run.config.warmup_share * run.steps),
            lr=run.config.peak_lr,
            rows=rows,
            dim=dim,
            loss=_finite(loss / run.method.loss_factor),
            gradients={name: float(norm) for name, norm in self._gradients.items()} or None,
            step_size=None if self._step_size is None else _finite(float(self._step_size)),
            growth=self._growth(run),
            **{name: None if value is None else _finite(value) for name, value in measured.items()},
        )
        self._looks = [*self._looks, now][-MEMORY:]
        return diagnose(self._looks)

    def further(self) -> dict[str, Any]:
        """What the last look measured beside health and comparison, for a line of metrics; flat."""
        assert self.last is not None
        found: dict[str, Any] = {name: getattr(self.last, name) for name in FURTHER}
        norms = {f"grad_norm_{name}": norm for name, norm in (self.last.gradients or {}).items()}
        return {name: value for name, value in (found | norms).items() if value is not None}

    def state(self) -> dict[str, Any]:
        """The last looks and the norm of the first weights, as JSON values."""
        return {"looks": [asdict(signals) for signals in self._looks], "first_norm": self._first_norm}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave."""
        self._looks = [Signals(**signals) for signals in state["looks"]]
        self._first_norm = state["first_norm"]

    def _growth(self, run: Run) -> float | None:
        # LARS moves each layer by a share of its own norm: in sound runs weights before a norm grow on and
        # on, at the published rate of MoCo v3 by 0.3 % a step.
        if not self._first_norm or run.config.optimizer == "lars":
            return None
        return _finite(float(_norm(_samples(_matrices(run)))) / self._first_norm)


def pair_order(anchors: Float[Tensor, "A D"], positives: Float[Tensor, "A D"]) -> Float[Tensor, ""]:
    """Share of the others' positives that are farther from an anchor than its own; equal ones count half.

    0.5 where pairs are drawn at random, however near to one another all vectors lie.
    """
    cosines = normalize(anchors.float(), dim=1) @ normalize(positives.float(), dim=1).T
    own = cosines.diagonal()[:, None]
    won = (cosines < own).sum() + 0.5 * ((cosines == own).sum() - len(cosines))
    return won / max(1, len(cosines) * (len(cosines) - 1))


def _vectors(
    health: Health, anchors: Tensor, positives: Tensor, *, device: torch.device
) -> dict[str, float | None]:
    """Signs of the vectors; the mean over ranks, so that all stop together or none."""
    found = {**asdict(health), "pair_order": float(pair_order(anchors, positives))}
    means = mean_over_ranks(torch.tensor(list(found.values()), dtype=torch.float64, device=device))
    return dict(zip(found, means.tolist(), strict=True))


def _compared(run: Run) -> dict[str, float | None]:
    """Signs of the comparison, which the step measured."""
    found = run.statistics
    if found is None:
        return {}
    # Alignment looks at no other column than the target, whatever stands in the bank.
    is_alone = bare(run.method.objective) is alignment
    return {
        "chance": 0.0 if is_alone else found.chance,
        "entropy": found.entropy,
        "positive_score": found.positive_score,
        "negative_score": found.negative_score,
    }


def _state(run: Run) -> dict[str, float | None]:
    """Signs of what a method carries from step to step."""
    method = run.method
    return {
        "temperature": _temperature(method),
        "batch_norm": _batch_norm(method),
        "ema_gap": _ema_gap(method),
        **_queue(method, run.step),
    }


def _is_due(run: Run) -> bool:
    """Whether the step that is about to be taken is looked at."""
    return (run.step + 1) % run.config.health_every == 0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _heads(method: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trained parameters by the module they belong to: encoder, projector, predictor, temperature."""
    heads: dict[str, list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            heads.setdefault(name.removeprefix("branch.").partition(".")[0], []).append(parameter)
    return heads


def _matrices(run: Run) -> list[Tensor]:
    return [p for group in run.optimizer.param_groups for p in group["params"] if p.ndim >= 2]


def _samples(weights: list[Tensor]) -> list[Tensor]:
    return [weight.detach().flatten()[:SAMPLE] for weight in weights]


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    norm: Tensor = torch.stack(torch._foreach_norm(list(tensors))).norm()
    return norm


def _temperature(method: nn.Module) -> float | None:
    found = [module for module in method.modules() if isinstance(module, Temperature)]
    return 1.0 / float(found[0].scale().detach()) if found else None


def _batch_norm(method: nn.Module) -> float | None:
    found = [
        statistic.double().sum()
        for layer in method.modules()
        if isinstance(layer, _BatchNorm) and layer.affine and layer.weight.requires_grad
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]
    return float(torch.stack(found).sum()) if found else None


def _ema_gap(method: nn.Module) -> float | None:
    for twin in method.children():
        if isinstance(twin, MomentumTwin):
            online = next(child for child in method.children() if type(child) is type(twin.module))
            return float(ema_gap(online, twin.module))
    return None


def _queue(method: nn.Module, step: int) -> dict[str, float | None]:
    for queue in method.modules():
        if isinstance(queue, Queue):
            state = queue_state(queue, rows_per_push=max(1, round(int(queue.pushed) / step)))
            return {"queue_fill": state.fill, "queue_age": state.mean_age}
    return {}

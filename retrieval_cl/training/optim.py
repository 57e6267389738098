"""The optimiser and its rate: AdamW, SGD or LARS by groups of parameters; the rate follows from the step."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.lars import Lars


def build_optimizer(method: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimiser of the config: a temperature has its own rate and never decays.

    AdamW is that of Loshchilov and Hutter 2019 (algorithm 2), SGD is torch's, whose decay is part of the
    gradient; for LARS see `Lars`. Each group holds `names`, the parameters' names in order, and `initial_lr`,
    its peak rate.

    Raises:
        InputError: nothing is trained; or a rate for a learned temperature is set, and none is learned.
    """
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    if not trained:
        raise InputError("nothing to train: every parameter of the method is frozen")
    temperatures = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in method.named_modules()
        if isinstance(module, Temperature)
        for name, _ in module.named_parameters()
    }
    if config.temperature_lr is not None and not any(name in temperatures for name, _ in trained):
        raise InputError("training.temperature_lr has no effect: method.learned_temperature is false")
    matrices = [(n, p) for n, p in trained if n not in temperatures and p.ndim >= 2]
    others = [(n, p) for n, p in trained if n not in temperatures and p.ndim < 2]
    scales = [(n, p) for n, p in trained if n in temperatures]
    lr, decay = config.peak_lr, config.weight_decay
    groups = [
        _group(matrices, lr=lr, weight_decay=decay),
        _group(others, lr=lr, weight_decay=decay if config.decays == "all" else 0.0),
        _group(scales, lr=config.temperature_lr or lr, weight_decay=0.0),
    ]
    return _OPTIMIZERS[config.optimizer]([group for group in groups if group["params"]], config)


def rate_share(
    step: int, *, steps: int, warmup_steps: int, schedule: Literal["cosine", "linear", "constant"]
) -> float:
    """Share of the peak rate at a step, counted from 0: rises to 1 over the warm-up, then falls towards 0.

    It is above 0 at the first and at the last step: none is wasted.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if schedule == "linear" else 1.0


def set_rate(optimizer: Optimizer, config: TrainingConfig, *, step: int, steps: int) -> None:
    """Sets each group's rate for the step that comes. It follows from the step: nothing to save."""
    share = rate_share(
        step, steps=steps, warmup_steps=round(config.warmup_share * steps), schedule=config.schedule
    )
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share


def _group(named: list[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": [parameter for _, parameter in named],
        "names": [name for name, _ in named],
        "lr": lr,
        "initial_lr": lr,
        "weight_decay": weight_decay,
    }


def _adamw(groups: list[dict[str, Any]], config: TrainingConfig) -> Optimizer:
    return AdamW(groups, betas=config.betas, eps=config.adam_eps, fused=True)


def _sgd(groups: list[dict[str, Any]], config: TrainingConfig) -> Optimizer:
    return SGD(groups, lr=config.peak_lr, momentum=config.momentum, fused=True)


def _lars(groups: list[dict[str, Any]], config: TrainingConfig) -> Optimizer:
    return Lars(
        groups, lr=config.peak_lr, momentum=config.momentum, eta=config.lars_eta, clip=config.lars_clip
    )


_OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd, "lars": _lars}

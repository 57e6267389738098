"""The objective that the settings of a method ask for."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import Objective, info_nce, sigmoid
from retrieval_cl.core.matryoshka import matryoshka
from retrieval_cl.core.temperature import Bias
from retrieval_cl.methods.config import MethodConfig


def build_objective(config: MethodConfig) -> Objective:
    """A function from a contrast to a loss per anchor, of all that settings may ask for."""
    whole = build_sigmoid(config) if config.objective == "sigmoid" else build_choice(config, config.symmetric)
    if config.matryoshka is None:
        return whole
    return matryoshka(whole, dims=config.matryoshka.dims, weights=config.matryoshka.weights)


def build_two_way(config: MethodConfig) -> Objective:
    """One that looks both ways, from anchors to candidates and back; sigmoid judges every pair once."""
    return build_sigmoid(config) if config.objective == "sigmoid" else build_choice(config, symmetric=True)


def build_sigmoid(config: MethodConfig) -> Objective:
    """Every pair judged by itself."""
    assert config.positives != "mean", "refused by the settings"
    return partial(
        sigmoid,
        positives=config.positives,
        guard=build_guard(config),
        compute_dtype=_compute_dtype(config),
    )


def build_choice(config: MethodConfig, symmetric: bool) -> Objective:
    """InfoNCE with the positives that are asked for; `symmetric`: with its reverse."""
    return partial(build_info_nce(config), symmetric=symmetric, positives=config.positives)


def build_info_nce(config: MethodConfig) -> partial[Tensor]:
    """InfoNCE in one direction, with a target alone as an anchor's positive."""
    return partial(
        info_nce,
        decoupled=config.decoupled,
        hardness=config.hardness,
        debias=config.debias,
        guard=build_guard(config),
        compute_dtype=_compute_dtype(config),
    )


def build_guard(config: MethodConfig) -> Guard | None:
    """The guard against false negatives, where one is set."""
    return None if config.guard is None else Guard(fraction=config.guard.fraction, margin=config.guard.margin)


def build_bias(config: MethodConfig) -> Bias | None:
    """What is added to every logit, for an objective that has such a thing."""
    return Bias(config.bias) if config.objective == "sigmoid" else None


def _compute_dtype(config: MethodConfig) -> torch.dtype | None:
    return torch.bfloat16 if config.loss_precision == "bf16" else None

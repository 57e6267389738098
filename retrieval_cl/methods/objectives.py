"""The objective that the settings of a method ask for."""

from __future__ import annotations

from functools import partial

import torch

from retrieval_cl.core.losses import Objective, info_nce
from retrieval_cl.methods.config import MethodConfig


def build_objective(config: MethodConfig) -> Objective:
    """A function from a contrast to a loss per anchor."""
    compute_dtype = torch.bfloat16 if config.loss_precision == "bf16" else None
    return partial(info_nce, symmetric=config.symmetric, compute_dtype=compute_dtype)

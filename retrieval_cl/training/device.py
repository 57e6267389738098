"""Where training runs and in which precision: accelerate places, we check."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch
from accelerate import Accelerator

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.units import multiplies


def start_accelerator() -> Accelerator:
    """The accelerator of this process: a GPU where there is one, else the CPU. Joins the other ranks.

    Raises:
        InputError: the launcher started more processes than accelerate sees, or told it too little.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
    except ValueError as error:
        raise InputError(f"accelerate cannot start with WORLD_SIZE {launched}: {error}") from None
    # Without a GPU accelerate may take each process of a launcher for the only one: each would train alone.
    if accelerator.num_processes != launched:
        raise InputError(
            f"WORLD_SIZE is {launched}, but accelerate sees {accelerator.num_processes} process(es); "
            "start with `accelerate launch` or `torchrun`, or unset WORLD_SIZE"
        )
    return accelerator


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16"], device: torch.device
) -> Literal["fp32", "bf16"]:
    """The precision of the encoder's products: by a rule, not by a timing, so that bits repeat."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies(torch.bfloat16, device) else "fp32"


def cast_to(precision: Literal["fp32", "bf16"], device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products run in the given precision; weights and gradients stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was told so far: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

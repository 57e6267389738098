"""Triton kernels for the shared part of the bank: the same sums and gradients as the torch tiles, on CUDA."""

from __future__ import annotations

import importlib.util
import os

import torch

OLDEST_CAPABILITY = (8, 0)


def available(device: torch.device) -> bool:
    """Whether the kernels run on a device: CUDA with triton, or any if triton interprets.

    Triton interprets where `TRITON_INTERPRET=1` was set before the kernels were imported: slow, for tests.
    Nothing below this folder may be imported where this is false, as triton may be missing.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (interpreted or device.type == "cuda") or importlib.util.find_spec("triton") is None:
        return False
    from retrieval_cl.core.kernels.flash import INTERPRETED

    if INTERPRETED:
        return True
    # bf16 products need an A100 or newer.
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= OLDEST_CAPABILITY

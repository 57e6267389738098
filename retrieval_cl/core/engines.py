"""Which engine compares: torch tiles anywhere, Triton kernels on a GPU where they know the task."""

from __future__ import annotations

import torch

from retrieval_cl.core.engine import Demand, Engine
from retrieval_cl.core.kernels import available
from retrieval_cl.core.tile_engine import TileEngine


def choose_engine(demand: Demand, device: torch.device) -> type[Engine]:
    """The fastest engine for what is asked, by a rule and not by a timing, so that bits repeat."""
    if device.type != "cuda" or not available(device):
        return TileEngine
    from retrieval_cl.core.kernels.engines import FlashEngine, SweepEngine

    if FlashEngine.knows(demand):
        return FlashEngine
    return SweepEngine if SweepEngine.knows(demand) else TileEngine

"""A twin of a module that follows it as an exponential moving average: the slow side of MoCo and BYOL."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

Momentum = Callable[[float], float]
"""From the share of the steps that are done, 0 to 1, to the share of the twin that a step keeps, 0 to 1."""


def constant_momentum(base: float) -> Momentum:
    """The same at every step (MoCo, He et al. 2020, eq. 2)."""
    return lambda progress: base


def cosine_momentum(base: float) -> Momentum:
    """From `base` at the first step to 1 at the end (BYOL, Grill et al. 2020, section 3.3; MoCo v3)."""
    return lambda progress: 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


@final
class MomentumTwin(nn.Module):
    """A copy of a module, equal at the start, whose parameters follow it and get no gradient.

    Parameters alone are averaged. Buffers are the twin's own: in training mode its BatchNorm layers take the
    statistics of the rows it sees itself, and their running means come from its own passes.

    All of it is in the state dict, and its momentum follows from the progress of the run: a resumed run goes
    on in the same bits.

    Attributes:
        module: the copy.
    """

    def __init__(self, module: nn.Module, momentum: Momentum) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._momentum = momentum

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """What the copy makes of the inputs, without a graph."""
        outputs: Tensor = self.module(inputs)
        return outputs

    @torch.no_grad()
    def update(self, module: nn.Module, *, progress: float) -> None:
        """Moves the copy a step towards `module`: twin = m * twin + (1 - m) * module.

        In place, in a few calls over all parameters; allocates no tensor and does not wait for a GPU.

        Args:
            module: what the twin is a copy of.
            progress: share of the steps done before this one.
        """
        torch._foreach_lerp_(
            list(self.module.parameters()), list(module.parameters()), 1.0 - self._momentum(progress)
        )

"""Random numbers on the host, one an image, and their way to the device.

Drawn on the host, the same generator state gives the same views on every device, and how many images are
blurred is known without waiting for one.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

Interval: TypeAlias = tuple[float, float]


def uniform(count: int, within: Interval, *, generator: torch.Generator) -> Float64[Tensor, " B"]:
    """Numbers from an interval; where its ends are equal, exactly these."""
    low, high = within
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def coins(count: int, probability: float, *, generator: torch.Generator) -> Bool[Tensor, " B"]:
    """True with the given probability: never at 0, always at 1."""
    return torch.rand(count, generator=generator, dtype=torch.float64) < probability


def symmetric(count: int, limit: float, *, generator: torch.Generator) -> Float64[Tensor, " B"]:
    """Numbers from -limit .. limit."""
    return uniform(count, (-limit, limit), generator=generator)


def send(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on the device, in single precision where they are real; the host does not wait."""
    if numbers.is_floating_point():
        numbers = numbers.float()
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)

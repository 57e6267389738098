"""The scale of the logits, 1 / temperature, fixed or learned; and the bias of the sigmoid objective."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Temperature(nn.Module):
    """Holds log(1 / temperature) as a parameter of shape [1] (CLIP, Radford et al. 2021, section 2.5).

    The parameter is saved with the model either way, so a fixed temperature travels with its checkpoint.
    """

    def __init__(
        self, temperature: float, *, learned: bool = False, min_scale: float = 1.0, max_scale: float = 100.0
    ) -> None:
        """Starts at `temperature`. A learned scale stays in `min_scale` .. `max_scale`, a fixed one as is."""
        super().__init__()
        assert temperature > 0 and 0 < min_scale < max_scale, (temperature, min_scale, max_scale)
        assert not learned or min_scale <= 1.0 / temperature <= max_scale, (temperature, min_scale, max_scale)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]), requires_grad=learned)
        self._range = (math.log(min_scale), math.log(max_scale)) if learned else (-math.inf, math.inf)

    def scale(self) -> Float[Tensor, "1"]:
        """1 / temperature, with gradient where it is learned."""
        return self.log_scale.clamp(*self._range).exp()

    @torch.no_grad()
    def limit(self) -> None:
        """Moves the parameter back into its range after an optimiser step: outside its gradient stays 0."""
        self.log_scale.clamp_(*self._range)


class Bias(nn.Module):
    """Holds what is added to every logit, a parameter of shape [1] (SigLIP, Zhai et al. 2023, eq. 1)."""

    def __init__(self, start: float) -> None:
        """Starts at `start`: far below 0, as nearly all pairs are negatives."""
        super().__init__()
        self.value = nn.Parameter(torch.tensor([start]))

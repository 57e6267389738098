"""LARS: momentum with a rate for each layer, by the norms of its weights and of its update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer


@final
class Lars(Optimizer):
    """Layer-wise adaptive rates (You et al. 2017, algorithm 1), in the form of SimCLR, BYOL and MoCo v3.

    With u = gradient + weight_decay * w of a layer:

        v <- momentum * v + u * eta * |w| / |u|;    w <- w - lr * v

    where a layer or an update of norm 0 keeps its u as it is. You et al. and solo-learn divide by
    |gradient| + weight_decay * |w|, which is never less than |u|; SimCLR's code puts the rate into v, which
    differs while the rate changes. Parameters of fewer than two dimensions (norms, biases, temperatures) are
    neither decayed nor adapted.

    A step launches lists of operations and waits for no device.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
        clip: bool = False,
    ) -> None:
        """Groups may set each of these for themselves.

        Args:
            params: parameters, or groups of them.
            lr: rate of the layers, times `eta * |w| / |u|`; above 0.
            momentum: share of the last step's v, 0 to below 1.
            weight_decay: of layers.
            eta: the trust coefficient: a layer moves by about lr * eta of its norm. Above 0.
            clip: whether a layer's rate is min(eta * |w| / |u|, lr) instead of lr * eta * |w| / |u|: LARC,
                and solo-learn's `clip_lr`.
        """
        assert lr > 0 and 0 <= momentum < 1 and weight_decay >= 0 and eta > 0
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "clip": clip}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step over all parameters that have a gradient; takes no closure."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            layers = [p for p in parameters if p.ndim >= 2]
            others = [p for p in parameters if p.ndim < 2]
            self._move(layers, _adapted(layers, group) if layers else [], group)
            self._move(others, [p.grad for p in others if p.grad is not None], group)

    def _move(self, parameters: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(parameters, velocities, alpha=-group["lr"])


def _adapted(layers: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Each layer's gradient with its decay, times the layer's own share of the rate."""
    gradients = [p.grad for p in layers if p.grad is not None]
    updates = list(torch._foreach_add(gradients, layers, alpha=group["weight_decay"]))
    weights = torch.stack(torch._foreach_norm(layers))
    lengths = torch.stack(torch._foreach_norm(updates))
    shares = group["eta"] * weights / lengths
    if group["clip"]:
        shares = (shares / group["lr"]).clamp_max(1.0)
    # A test of the values would wait for the device.
    shares = shares.where((weights > 0) & (lengths > 0), 1.0)
    torch._foreach_mul_(updates, list(shares.unbind()))
    return updates

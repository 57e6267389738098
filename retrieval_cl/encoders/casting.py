"""Computing in a shorter type: the weights are rounded once, the numbers between the layers with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from torch.func import functional_call

Forward = Callable[..., Any]


@contextmanager
def forward_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[Forward]:
    """Yields a call of the model that computes in a type; None: that of its weights.

    Rounded weights are a copy in that type while the block lasts. Autocast, which rounds the inputs of each
    product and widens the sums again, takes a third more time; it is left to models with tables of tokens,
    whose rows must keep their digits. Buffers (rotary frequencies) keep them in any case.
    """
    if dtype is None:
        yield model
    elif any(isinstance(module, StaticEmbedding) for module in model.modules()):
        device = next(model.parameters()).device
        with torch.autocast(device.type, dtype=dtype):
            yield model
    else:
        rounded = _round(model, dtype)

        def forward(features: dict[str, Any], **options: Any) -> Any:
            return functional_call(model, rounded, (features,), options)

        yield forward


def _round(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    weights = ((name, weight.detach()) for name, weight in model.named_parameters())
    return {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in weights}

"""From what a transformers image model gives to one vector an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image_config import TokenPooling

Pool = Callable[[Any], Tensor]


def choose_pool(
    backbone: nn.Module, output: Any, *, size: int, pooling: TokenPooling | None
) -> tuple[Pool, TokenPooling | None]:
    """How to pool outputs like the given one, and the pooling that stands for it (None: of maps).

    Args:
        backbone: whose output it is.
        output: for a batch of images of this size.
        size: side of the images, in pixels.
        pooling: what is asked for; None: "mean" for tokens.

    Raises:
        InputError: there is nothing to pool so.
    """
    name = type(backbone).__name__
    given: Tensor | None = getattr(output, "last_hidden_state", None)
    if given is not None and given.dim() == 4 and getattr(output, "pooler_output", None) is not None:
        if pooling is not None:
            raise InputError(
                f"encoder.pooling = '{pooling}' has no effect: {name} gives maps, and pools them itself"
            )
        return _pooled_maps, None
    if given is None or given.dim() != 3:
        raise InputError(f"{name} gives neither pooled maps nor token vectors of an image")
    if pooling == "cls":
        return _first_token, "cls"
    return partial(_mean_of_patches, patches=_count_patches(backbone, size=size)), "mean"


def _pooled_maps(output: Any) -> Float[Tensor, "B F"]:
    pooled: Tensor = output.pooler_output
    return pooled.flatten(1)


def _first_token(output: Any) -> Float[Tensor, "B F"]:
    tokens: Tensor = output.last_hidden_state
    return tokens[:, 0]


def _mean_of_patches(output: Any, *, patches: int) -> Float[Tensor, "B F"]:
    # Class and register tokens stand before the patches; merged patches (Swin) are fewer than counted.
    tokens: Tensor = output.last_hidden_state
    return tokens[:, -patches:].mean(dim=1)


def _count_patches(backbone: nn.Module, *, size: int) -> int:
    config: Any = backbone.config
    side = getattr(config, "patch_size", 1)
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return int(size // height) * int(size // width)

"""Heads between an encoder's features and the loss: projectors, and the predictors behind them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.head_config import HeadConfig, HeadLayout, LastNorm


@final
class Head(nn.Module):
    """Linear layers with ReLU between, and batch norm where the layout says; see `HeadLayout`.

    Weights start as torch's `nn.Linear` does, from torch's generator.

    Attributes:
        dim: numbers in a vector it gives.
    """

    def __init__(self, layout: HeadLayout, features: int, *, dim: int | None = None) -> None:
        """`features`: numbers in a row it takes; `dim`: for the layout's."""
        super().__init__()
        self.dim = layout.dim if dim is None else dim
        widths = [features, *[layout.hidden or features] * (layout.layers - 1), self.dim]
        self.layers = nn.Sequential(*_modules(layout, widths))

    def forward(self, rows: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """The vectors that the loss compares, not of unit length."""
        vectors: Tensor = self.layers(rows)
        return vectors


def build_projector(config: HeadConfig, features: int) -> Head:
    """The head from an encoder's features of so many numbers to what the loss compares."""
    return Head(config.layout, features)


def build_predictor(config: HeadConfig, dim: int) -> Head:
    """The head from a projector's vectors of `dim` numbers to predictions of as many.

    Raises:
        InputError: the settings ask for another number.
    """
    if config.dim is not None and config.dim != dim:
        raise InputError(
            f"method.predictor.dim is {config.dim}, but the projector gives {dim} numbers, which predictions "
            "are compared with; remove method.predictor.dim"
        )
    return Head(config.layout, dim, dim=dim)


def _modules(layout: HeadLayout, widths: list[int]) -> Iterator[nn.Module]:
    for narrow, wide in pairwise(widths[:-1]):
        yield nn.Linear(narrow, wide, bias=not layout.hidden_norm)
        if layout.hidden_norm:
            yield nn.BatchNorm1d(wide)
        yield nn.ReLU(inplace=True)
    yield nn.Linear(widths[-2], widths[-1], bias=layout.last_bias and layout.last_norm == "none")
    if layout.last_norm != "none":
        yield _last_norm(nn.BatchNorm1d(widths[-1]), layout.last_norm)


def _last_norm(norm: nn.Module, kind: LastNorm) -> nn.Module:
    # Held at 1 and 0 rather than left out: any kind of batch norm can do so, and checkpoints keep one shape.
    frozen = {"plain": ("weight", "bias"), "scale": ("bias",), "full": ()}[kind]
    for name in frozen:
        weight: nn.Parameter = getattr(norm, name)
        weight.requires_grad_(False)
    return norm

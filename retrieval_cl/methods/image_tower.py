"""From pixels to the vectors that are compared: a tower of images, its projector, and views through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval_cl.core.ranks import gather_values, rank
from retrieval_cl.core.unit_rows import unit_rows
from retrieval_cl.core.views import Batch, Pixels

Forward = Callable[[Tensor], Tensor]
"""Pixels [B, 3, H, W] -> vectors [B, D] of any length."""

EmbedViews = Callable[[Forward, Batch, Sequence[str]], dict[str, Tensor]]
"""Unit rows of those of the given kinds of view that the batch has, by kind."""


@runtime_checkable
class ImageTower(Protocol):
    """What embeds an image: `encoders.image.ImageEncoder`, or anything else that gives features."""

    dim: int

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Feature vectors of any length, with gradient, in training or evaluation mode as the module is."""


@final
class Branch(nn.Module):
    """A tower and its projector: what is trained, and what has a twin. The projector is dropped afterwards.

    Attributes:
        encoder: an `ImageTower`.
        projector: from features to the vectors that are compared.
        dim: numbers in such a vector.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, *, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.dim = dim

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Projections of any length."""
        tower: ImageTower = self.encoder  # type: ignore[assignment]
        vectors: Tensor = self.projector(tower.features(pixels))
        return vectors


def views_apart(forward: Forward, batch: Batch, kinds: Sequence[str]) -> dict[str, Tensor]:
    """A pass for each view: BatchNorm takes its statistics of one view at a time."""
    return {kind: unit_rows(forward(_pixels(batch, kind))) for kind in kinds if kind in batch.views}


def views_together(forward: Forward, batch: Batch, kinds: Sequence[str]) -> dict[str, Tensor]:
    """One pass over all: BatchNorm takes its statistics of them all."""
    there = [kind for kind in kinds if kind in batch.views]
    if not there:
        return {}
    pixels = [_pixels(batch, kind) for kind in there]
    rows = unit_rows(forward(torch.cat(pixels)))
    return dict(zip(there, rows.split([len(view) for view in pixels]), strict=True))


def in_order(forward: Forward, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Passes the rows as they are."""
    return forward(pixels)


def shuffled(forward: Forward, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Passes the rows of all ranks in a random order and gives back this rank's, without gradient.

    A query and its key must not stand among the same rows where BatchNorm takes its statistics: from these
    the one would be told from the others (MoCo, He et al. 2020, section 3.3).
    """
    everyone, num_rows = gather_values(pixels), len(pixels)
    mine = slice(rank() * num_rows, (rank() + 1) * num_rows)
    # Each rank draws its own; that of rank 0 is meant.
    drawn = torch.randperm(len(everyone)).to(pixels.device, non_blocking=True)
    order = gather_values(drawn[None])[0]
    rows = gather_values(forward(everyone[order[mine]]).detach())
    return rows[order.argsort()[mine]]


def renamed(embeddings: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The embeddings by other names."""
    return {names[kind]: vectors for kind, vectors in embeddings.items()}


def _pixels(batch: Batch, kind: str) -> Float[Tensor, "B 3 H W"]:
    # Sources of images give pixels.
    return cast(Pixels, batch.views[kind].inputs).values

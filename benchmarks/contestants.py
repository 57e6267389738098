"""The contestants of the loss benchmarks: each is one forward and backward over given embeddings.

All get unit rows, the same scale, and anchors whose targets are the first columns of the bank; each returns
its loss (the bare products: None), so that a script can refuse to compare unlike things. Peers are spared the
work of making rows unit that ours leaves to the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from retrieval_cl.core.contrast import Bank, Contrast, Part
from retrieval_cl.core.losses import Objective

SCALE = 20.0


@dataclass(frozen=True)
class Size:
    """Anchors, columns of the bank (a multiple of the anchors), and length of a vector."""

    anchors: int
    columns: int
    dim: int

    @property
    def operations(self) -> float:
        """Floating-point operations of the four products: logits, logits again, two gradients."""
        return 8.0 * self.anchors * self.columns * self.dim

    @property
    def numbers(self) -> int:
        """Numbers in the inputs, and in their gradients."""
        return (self.anchors + self.columns) * self.dim + 1

    def __str__(self) -> str:
        return f"{self.anchors} x {self.columns} x {self.dim}"


@dataclass(frozen=True, eq=False)
class Given:
    """Leaves, and ids no two columns share; an anchor knows its target's and others that the bank lacks."""

    anchors: Float[Tensor, "A D"]
    bank: Float[Tensor, "C D"]
    scale: Float[Tensor, "1"]
    ids: Int64[Tensor, " C"]
    known: Int64[Tensor, "A P"]

    @property
    def targets(self) -> Int64[Tensor, " A"]:
        """The first columns."""
        return torch.arange(len(self.anchors), device=self.ids.device)

    def contrast(self) -> Contrast:
        """As our objectives take it."""
        bank = Bank((Part(self.bank, self.ids),))
        return Contrast(self.anchors, self.known, bank, self.targets, self.scale)


def draw(
    size: Size,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    ids_device: torch.device | str = "cpu",
) -> Given:
    """Random unit rows on one device, ids on another; the same every time."""
    random = torch.Generator(device).manual_seed(0)
    bank = normalize(torch.randn(size.columns, size.dim, generator=random, device=device), dim=1).to(dtype)
    anchors = torch.randn(size.anchors, size.dim, generator=random, device=device)
    # Near their targets, as in training: at random rows the softmax is flat.
    anchors = normalize(anchors / size.dim**0.5 + bank[: size.anchors], dim=1).to(dtype)
    ids = torch.randperm(size.columns, generator=torch.Generator().manual_seed(0)).to(ids_device)
    scale = torch.full((1,), SCALE, device=device, requires_grad=True)
    return with_known(
        Given(anchors.requires_grad_(), bank.requires_grad_(), scale, ids, ids[: size.anchors, None]), 4
    )


def with_known(given: Given, count: int) -> Given:
    """The same, where an anchor knows so many ids: its target's and others that the bank lacks."""
    num_anchors, others = len(given.anchors), count - 1
    absent = torch.arange(num_anchors * others, device=given.ids.device) + len(given.ids)
    first = given.ids[:num_anchors, None]
    return replace(given, known=torch.cat([first, absent.view(num_anchors, others)], dim=1))


def ours(given: Given, objective: Objective) -> Callable[[], Tensor]:
    """One of our objectives, with gradients for anchors, bank and scale."""

    def step() -> Tensor:
        loss = objective(given.contrast()).mean()
        torch.autograd.grad(loss, (given.anchors, given.bank, given.scale))
        return loss.detach()

    return step


def bare_products(given: Given, *, tile: int, dtype: torch.dtype | None = None) -> Callable[[], None]:
    """The four products any memory-flat loss must do, tile by tile, and nothing else: no sum, no exponential.

    Each writes into memory that was there before, in the dtype of the product.
    """
    anchors, bank = given.anchors.detach(), given.bank.detach()
    if dtype is not None:
        anchors, bank = anchors.to(dtype), bank.to(dtype)
    flat = anchors.new_empty(min(tile, len(anchors)) * min(tile, len(bank)))
    grad_anchors, grad_bank = torch.empty_like(anchors[:tile]), torch.empty_like(bank[:tile])

    def step() -> None:
        for columns in bank.split(tile):
            for rows in anchors.split(tile):
                logits = flat[: len(rows) * len(columns)].view(len(rows), len(columns))
                torch.mm(rows, columns.T, out=logits)
                torch.mm(rows, columns.T, out=logits)
                torch.mm(logits, columns, out=grad_anchors[: len(rows)])
                torch.mm(logits.T, rows, out=grad_bank[: len(columns)])

    return step


def plain_torch(given: Given, *, dtype: torch.dtype | None = None) -> Callable[[], Tensor]:
    """All logits at once and `cross_entropy`, in float32 after a product in `dtype`; no ids.

    The scale meets the anchors, not the logits, which spares it a tensor of logits.
    """
    targets = given.targets.to(given.anchors.device)

    def step() -> Tensor:
        scaled = given.anchors * given.scale
        bank = given.bank
        if dtype is not None:
            scaled, bank = scaled.to(dtype), bank.to(dtype)
        loss = cross_entropy((scaled @ bank.T).float(), targets)
        torch.autograd.grad(loss, (given.anchors, given.bank, given.scale))
        return loss.detach()

    return step


def scaled_logits(given: Given) -> Callable[[], Tensor]:
    """Plain torch as CLIP writes it: the learned scale meets the logits. In float32."""
    targets = given.targets.to(given.anchors.device)

    def step() -> Tensor:
        loss = cross_entropy(given.scale * (given.anchors @ given.bank.T), targets)
        torch.autograd.grad(loss, (given.anchors, given.bank, given.scale))
        return loss.detach()

    return step


def multiple_negatives(given: Given) -> Callable[[], Tensor]:
    """sentence-transformers' MultipleNegativesRankingLoss on given embeddings."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import dot_score

    columns = _columns(given)
    loss_of: Any = MultipleNegativesRankingLoss(_no_model(), scale=SCALE, similarity_fct=dot_score)

    def step() -> Tensor:
        loss: Tensor = loss_of.compute_loss_from_embeddings(columns, None)
        torch.autograd.grad(loss, columns)
        return loss.detach()

    return step


def cached_multiple_negatives(given: Given, *, rows: int) -> Callable[[], Tensor]:
    """The loss stage alone of their CachedMultipleNegativesRankingLoss, `rows` anchors at a time."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.util import dot_score

    columns = _columns(given)
    loss_of: Any = CachedMultipleNegativesRankingLoss(
        _no_model(), scale=SCALE, similarity_fct=dot_score, mini_batch_size=rows
    )

    def step() -> Tensor:
        loss: Tensor = loss_of.calculate_loss([[column] for column in columns], with_backward=True)
        for column in columns:
            column.grad = None
        return loss.detach()

    return step


def nt_xent(given: Given) -> Callable[[], Tensor]:
    """pytorch-metric-learning's NTXentLoss; its memory grows with A * A * C."""
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NTXentLoss

    loss_of: Any = NTXentLoss(
        temperature=1 / SCALE, distance=DotProductSimilarity(normalize_embeddings=False)
    )

    def step() -> Tensor:
        loss: Tensor = loss_of(
            given.anchors, given.ids[given.targets], ref_emb=given.bank, ref_labels=given.ids
        )
        torch.autograd.grad(loss, (given.anchors, given.bank))
        return loss.detach()

    return step


def _columns(given: Given) -> list[Tensor]:
    """Anchors, positives and mined negatives, each as many rows as there are anchors, each a leaf."""
    blocks = given.bank.detach().split(len(given.anchors))
    return [given.anchors.detach().requires_grad_(), *(block.clone().requires_grad_() for block in blocks)]


def _no_model() -> nn.Module:
    # Asked only for the type of its first module.
    return nn.Sequential(nn.Identity())

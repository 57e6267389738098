"""Signals of collapse: what the vectors look like, whatever the loss says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from retrieval_cl.core.queue import Queue

PAIR_BLOCK = 1024


@dataclass(frozen=True)
class Health:
    """How spread the vectors are. Where anchors and positives differ, the worse of the two sides.

    Attributes:
        std_ratio: 1 where unit rows spread evenly, 0 where they are all equal.
        effective_rank: number of directions in use, 1 to D.
        alignment: mean squared distance of an anchor to its positive, 0 (equal) to 4.
        uniformity: -4 (spread over the sphere) to 0 (all equal).
    """

    std_ratio: float
    effective_rank: float
    alignment: float
    uniformity: float


@torch.no_grad()
def measure_health(anchors: Float[Tensor, "A D"], positives: Float[Tensor, "A D"]) -> Health:
    """All signals of anchors and their positives, row by row. Waits for the device."""
    return Health(
        std_ratio=min(float(std_ratio(anchors)), float(std_ratio(positives))),
        effective_rank=min(float(effective_rank(anchors)), float(effective_rank(positives))),
        alignment=float(alignment(anchors, positives)),
        uniformity=max(float(uniformity(anchors)), float(uniformity(positives))),
    )


@torch.no_grad()
def std_ratio(x: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Mean standard deviation of unit rows' coordinates, times sqrt(D) (Chen and He 2021, section 4.1)."""
    rows = _unit(x)
    ratio: Tensor = rows.std(dim=0, correction=0).mean() * rows.shape[1] ** 0.5
    return ratio


@torch.no_grad()
def effective_rank(x: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Exponential of the entropy of the centred rows' singular values (Roy and Vetterli 2007, def. 1).

    Centred, because a direction that all rows share would hide a collapse. 1 where all rows are equal.
    """
    rows = x.double()
    centred = rows - rows.mean(dim=0)
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    eigenvalues = torch.linalg.eigvalsh(gram)
    # What rounding leaves of an exact zero must not count as a direction.
    floor = torch.finfo(rows.dtype).eps * len(gram) * rows.square().sum()
    singular = eigenvalues.where(eigenvalues > floor, 0.0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(rows.dtype).tiny)
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()


@torch.no_grad()
def alignment(a: Float[Tensor, "N D"], b: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Mean squared distance of unit rows a[i] and b[i] (Wang and Isola 2020, eq. 4 with alpha 2)."""
    distance: Tensor = (_unit(a) - _unit(b)).square().sum(dim=1).mean()
    return distance


@torch.no_grad()
def uniformity(x: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Log of the mean of exp(-2 d^2) over all pairs of unit rows (Wang and Isola 2020, eq. 5 with t 2).

    0 where all rows are equal, about -4 where they spread over a sphere of many dimensions; 0 for one row.
    """
    rows = _unit(x)
    num_pairs = len(rows) * (len(rows) - 1)
    if num_pairs == 0:
        return rows.new_zeros(())
    total = rows.new_zeros((), dtype=torch.float64)
    for block in rows.split(PAIR_BLOCK):
        total += (4.0 * (block @ rows.T - 1.0)).exp().sum(dtype=torch.float64)
    # Each row met itself once, at distance 0.
    mean: Tensor = (total - len(rows)) / num_pairs
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


@torch.no_grad()
def gradient_norms(groups: Mapping[str, Iterable[nn.Parameter]]) -> dict[str, Float[Tensor, ""]]:
    """Norm of the gradients of each group of parameters (encoder, projector, predictor), on their device.

    0 for a group without gradients. To be asked between the backward pass and `zero_grad`. Waits for nothing.
    """
    return {name: _norm([p.grad for p in group if p.grad is not None]) for name, group in groups.items()}


@torch.no_grad()
def ema_gap(online: nn.Module, twin: nn.Module) -> Float[Tensor, ""]:
    """Distance of a module's parameters to those of its moving average, as a share of their own norm.

    0 where the twin is a copy (momentum 0, or no training yet); about |step| / (1 - momentum) of the norm in
    steady training; near sqrt(2) where they have nothing in common. Waits for nothing.
    """
    ours: list[Tensor] = list(online.parameters())
    theirs: list[Tensor] = list(twin.parameters())
    return _norm(list(torch._foreach_sub(ours, theirs))) / _norm(ours)


@dataclass(frozen=True)
class QueueState:
    """How full and how old a queue is.

    Attributes:
        fill: share of its places that hold a row, 0 to 1.
        mean_age: pushes since a row came in, averaged over the rows; 0 for those of the last push.
        max_age: that of the oldest row.
    """

    fill: float
    mean_age: float
    max_age: int


def queue_state(queue: Queue, *, rows_per_push: int) -> QueueState:
    """Fill and age of a queue, from its count of pushed rows: no row has a date of its own.

    So it is exact where every push had `rows_per_push` rows (a step's batch over all ranks, which is fixed),
    and a mean over pushes otherwise. Looks at no tensor.
    """
    filled, whole = queue.filled, queue.filled // rows_per_push
    if filled == 0:
        return QueueState(0.0, 0.0, 0)
    # Whole pushes of ages 0, 1, ..., and what is left of the one before them.
    total = rows_per_push * whole * (whole - 1) // 2 + (filled - whole * rows_per_push) * whole
    return QueueState(filled / queue.size, total / filled, (filled - 1) // rows_per_push)


def _norm(tensors: list[Tensor]) -> Float[Tensor, ""]:
    if not tensors:
        return torch.zeros(())
    norm: Tensor = torch.stack(torch._foreach_norm(tensors)).norm()
    return norm


def _unit(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    return normalize(x.double() if x.dtype == torch.float64 else x.float(), dim=1)

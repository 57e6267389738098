"""Rows of all ranks, with gradient. In one process everything here is the identity.

Every rank compares its own anchors with everybody's candidates and takes the mean over its own anchors; the
gradient of a gathered row is summed over ranks; parameter gradients are averaged over ranks. That is exactly
the gradient of the mean over all anchors, with no factor of the world size anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from retrieval_cl.core.errors import InputError

BUCKET_NUMBERS = 16_000_000


def num_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Which of them this process is, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def gather_rows(rows: Float[Tensor, "B D"]) -> Float[Tensor, "W_B D"]:
    """The rows of all ranks, in rank order, with gradient. Every rank must bring the same number of rows."""
    if num_ranks() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def gather_values(values: Shaped[Tensor, B * rest]) -> Shaped[Tensor, W_B * rest]:
    """The values of all ranks, in rank order, without gradient: ids, lengths, weights."""
    return values if num_ranks() == 1 else _all_gather(values)


def mean_over_ranks(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean of a value over all ranks, without gradient."""
    if num_ranks() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / num_ranks()


def any_rank(flag: bool, *, device: torch.device) -> bool:
    """Whether the flag is set on any rank; every rank must ask."""
    if num_ranks() == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def min_over_ranks(values: Sequence[int], *, device: torch.device) -> list[int]:
    """The least of each value over all ranks; every rank must ask. On a GPU this waits for the device."""
    if num_ranks() == 1:
        return list(values)
    least = torch.tensor(values, device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    found: list[int] = least.tolist()
    return found


def refuse_uneven(rows: Mapping[str, int], *, device: torch.device) -> None:
    """Raises InputError, on all ranks, where they bring different numbers of rows to a step.

    A gather of uneven rows hangs or mixes them up, and the mean over ranks would weigh anchors unequally. The
    loop asks before each step, where it costs one small all-reduce and no wait: the step before ended with
    the ranks agreeing to go on (`any_rank`), so the device has nothing left to do.

    Args:
        rows: kind of view -> rows of this rank; of the same kinds on all ranks.
        device: where ranks talk to each other.
    """
    counts = list(rows.values())
    least = min_over_ranks([*counts, *(-count for count in counts)], device=device)
    for kind, low, high in zip(rows, least, least[len(counts) :], strict=False):
        if low != -high:
            raise InputError(
                f"ranks bring {low} to {-high} rows of view '{kind}' to a step (this one {rows[kind]}); "
                "each must bring as many: the data source has to drop or fill up an uneven last batch"
            )


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Averages gradients over ranks, in buckets. Skips sharded parameters, which average their own.

    A parameter that got no gradient on this rank takes part with zeros: another rank may have used it.
    """
    if num_ranks() == 1:
        return
    from torch.distributed.tensor import DTensor

    whole = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    for parameter in whole:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in whole if p.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= num_ranks()
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _all_gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(num_ranks())[rank()]


def _all_gather(values: Tensor) -> Tensor:
    if values.device.type == "cpu" and dist.get_backend() == "nccl":
        # NCCL takes no host memory. The way back is the one wait of a step over several GPUs.
        return _all_gather(values.to("cuda", non_blocking=True)).cpu()
    values = values.detach().contiguous()
    out = [torch.empty_like(values) for _ in range(num_ranks())]
    dist.all_gather(out, values)
    return torch.cat(out)


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    # One call a parameter is slow on many small ones; one flat copy of all of them doubles the memory.
    bucket: list[Tensor] = []
    for gradient in gradients:
        fits = not bucket or (
            gradient.dtype == bucket[0].dtype
            and sum(g.numel() for g in bucket) + gradient.numel() <= BUCKET_NUMBERS
        )
        if not fits:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()

"""BatchNorm over the rows of all ranks, or over parts of a batch.

Buffers and parameters have the names of torch's BatchNorm, so weights load from one kind into another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import gather_values, mean_over_ranks, num_ranks


class _AnyShape(_BatchNorm):
    """Takes vectors and images, as torch's own SyncBatchNorm does."""

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.ndim >= 2, input.shape


@final
class SyncBatchNorm(_AnyShape):
    """BatchNorm whose statistics are those of the rows of all ranks (Ioffe and Szegedy 2015, algorithm 1).

    Outputs, gradients and running statistics equal those of `nn.BatchNorm` on the concatenated batch; in one
    process it is `nn.BatchNorm`. Statistics are taken in float32 or better. Every rank must bring the same
    number of rows, which the training loop checks, and pass the same layers in the same order. Works wherever
    ranks can exchange tensors, CPU included, where torch's class refuses.
    """

    def forward(self, input: Float[Tensor, "B C *place"]) -> Float[Tensor, "B C *place"]:
        """Normalised rows; over ranks one gather of 2 C numbers forward, one all-reduce of them backward."""
        if num_ranks() == 1 or not _uses_batch(self):
            return super().forward(input)
        rows = input if input.dtype == torch.float64 else input.float()
        mean, variance = _statistics_over_ranks(rows.detach())
        _update_running(self, mean, variance, count=rows.numel() // rows.shape[1] * num_ranks())
        found: Tensor = _Normalise.apply(rows, mean, (variance + self.eps).rsqrt())  # type: ignore[no-untyped-call]
        if self.affine:
            found = found * _along_channels(self.weight, found) + _along_channels(self.bias, found)
        return found.to(input.dtype)


@final
class SplitBatchNorm(_AnyShape):
    """BatchNorm with the statistics of each of n equal parts of the batch, as if n devices had one each.

    Part i holds the rows i, i + n, i + 2n, ... of the batch. This is how MoCo keeps its shuffling of rows on
    one device (its CIFAR-10 notebook; `bn-splits`). Running statistics are the means over the parts; in
    evaluation mode it is `nn.BatchNorm`.
    """

    def __init__(self, num_features: int, *, num_splits: int, **options: Any) -> None:
        """`options` are those of `nn.BatchNorm2d`."""
        super().__init__(num_features, **options)
        assert num_splits >= 1
        self.num_splits = num_splits

    def forward(self, input: Float[Tensor, "B C *place"]) -> Float[Tensor, "B C *place"]:
        """Normalised rows.

        Raises:
            InputError: the batch does not split into equal parts.
            ValueError: a part has one value a channel, which has no variance.
        """
        if self.num_splits == 1 or not _uses_batch(self):
            return super().forward(input)
        num_rows, splits = len(input), self.num_splits
        if num_rows % splits:
            raise InputError(
                f"{num_rows} rows do not split into {splits} equal parts for BatchNorm; set "
                f"training.batch_size to a multiple of {splits * num_ranks()}"
            )
        # A row's channels stand beside those of its neighbours: n times as many channels, B / n rows.
        parts = input.reshape(num_rows // splits, splits * self.num_features, *input.shape[2:])
        means, variances = (
            None if running is None else running.repeat(splits)
            for running in (self.running_mean, self.running_var)
        )
        weight, bias = (None if value is None else value.repeat(splits) for value in (self.weight, self.bias))
        found = batch_norm(parts, means, variances, weight, bias, True, _momentum(self), self.eps)
        _set_running(self, *(None if x is None else x.view(splits, -1).mean(0) for x in (means, variances)))
        found = found.view(input.shape)
        is_last = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last)
        return found.contiguous(memory_format=torch.channels_last) if is_last else found


def convert_norms(module: nn.Module, make: Callable[..., _BatchNorm]) -> nn.Module:
    """Puts another kind of BatchNorm in place of each `nn.BatchNorm1d` and `nn.BatchNorm2d`.

    Args:
        module: changed in place, unless it is itself such a layer.
        make: the class of the new kind, or `functools.partial` of it; called as `nn.BatchNorm2d` is.

    Returns:
        The module. Parameters are the same objects as before; buffers, mode and place stay.
    """
    made: dict[nn.Module, nn.Module] = {}

    def convert(child: nn.Module) -> nn.Module:
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            # One layer in two places stays one layer.
            if child not in made:
                made[child] = _like(child, make)
            return made[child]
        # Unlike `named_children`, this names a layer that stands in two places twice.
        for name, grandchild in list(child._modules.items()):
            if grandchild is not None:
                setattr(child, name, convert(grandchild))
        return child

    return convert(module)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Running statistics of BatchNorm layers become their means over ranks: then all have the same model.

    Every rank must ask; in one process nothing happens. They follow the batches linearly, so that it does not
    matter how often they are averaged.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, _BatchNorm))
    both = ((layer.running_mean, layer.running_var) for layer in layers)
    found = [running for pair in both for running in pair if running is not None]
    if num_ranks() == 1 or not found:
        return
    means = mean_over_ranks(torch.cat(found))
    for running, mean in zip(found, means.split([len(running) for running in found]), strict=True):
        running.copy_(mean)


class _Normalise(torch.autograd.Function):
    """(rows - mean) * inverse, where mean and inverse deviation follow from the rows of all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(rows, mean, inverse)
        return _standardised(rows, mean, inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, mean, inverse = ctx.saved_tensors
        found, others = _standardised(rows, mean, inverse), _others(rows)
        # Every row pulls at the mean and at the deviation of all rows, those of other ranks included.
        sums = torch.stack([gradient.mean(others), (gradient * found).mean(others)])
        shift, stretch = (_along_channels(x, rows) for x in mean_over_ranks(sums))
        return (gradient - shift - found * stretch) * _along_channels(inverse, rows), None, None


def _standardised(rows: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    return (rows - _along_channels(mean, rows)) * _along_channels(inverse, rows)


def _statistics_over_ranks(rows: Float[Tensor, "B C *place"]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance by channel, from those of each rank, without sums of squares to subtract."""
    variance, mean = torch.var_mean(rows, _others(rows), correction=0)
    means, variances = gather_values(torch.stack([mean, variance])[None]).unbind(1)
    whole = means.mean(0)
    return whole, (variances + (means - whole).square()).mean(0)


def _update_running(norm: _BatchNorm, mean: Tensor, variance: Tensor, *, count: int) -> None:
    momentum = _momentum(norm)
    _set_running(
        norm,
        None if norm.running_mean is None else norm.running_mean.lerp(mean, momentum),
        None
        if norm.running_var is None
        else norm.running_var.lerp(variance * (count / (count - 1)), momentum),
    )


@torch.no_grad()
def _set_running(norm: _BatchNorm, mean: Tensor | None, variance: Tensor | None) -> None:
    if norm.running_mean is None or norm.running_var is None or mean is None or variance is None:
        return
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)


def _uses_batch(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def _momentum(norm: _BatchNorm) -> float:
    assert norm.momentum is not None, "a cumulative average would have to look at its count each step"
    return norm.momentum


def _like(norm: _BatchNorm, make: Callable[..., _BatchNorm]) -> _BatchNorm:
    options = {name: getattr(norm, name) for name in ("eps", "momentum", "affine", "track_running_stats")}
    new = make(norm.num_features, **options)
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(new, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new.train(norm.training)


def _others(rows: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [0, *range(2, rows.ndim)]


def _along_channels(values: Float[Tensor, " C"], rows: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (rows.ndim - 2))

"""Distillation: objectives that fit an anchor's scores of its own candidates to those of a teacher.

The candidates are the columns that `Contrast.own` names, the target among them, in shared and private parts
alike. A candidate with id -1 is nobody's, so it is left out as a -1 in `own` is. One that carries another id
its anchor knows to match stays: the teacher says how good it is. The target counts whatever its id, and a
column named twice counts twice. The student's scores are its logits, scale * cosine + bias: the bias cancels,
and a learned scale lets cosines fit the range of a teacher's scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import kl_div

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.identity import column_ids

NUMBERS_AT_ONCE = 1 << 22


def margin_mse(contrast: Contrast) -> Float[Tensor, " A"]:
    """Squared error of the margins between target and other candidates (Margin-MSE, Hofstätter et al. 2020).

    The mean of ((s_target - s_j) - (t_target - t_j))^2 over an anchor's other candidates j, with s the
    student's logits and t the teacher's scores. The teacher's margins are of the order of 10 where it is a
    cross-encoder, and a cosine's never above 2: choose a scale that reaches them, or have it learned.

    Returns:
        The loss of each anchor in squared units of the teacher's scores, 0 where the target is not among its
        candidates or is the only one.

    Raises:
        InputError: the contrast has no `own` or no `teacher`.
    """
    own, teacher = _group(contrast)
    is_target = own == contrast.targets.to(own.device, non_blocking=True)[:, None]
    others = (own >= 0) & ~is_target & is_target.any(dim=1, keepdim=True)
    # logit - score: the difference of two of these is the difference of the margins.
    gaps = _logits(contrast, own) - teacher
    place = is_target.int().argmax(dim=1, keepdim=True)
    # Padding may hold anything, even what is not finite.
    errors = (gaps.gather(1, place) - gaps).masked_fill(~others, 0.0)
    return errors.square().sum(dim=1) / others.sum(dim=1).clamp_min(1)


def kl_divergence(contrast: Contrast, *, teacher_temperature: float = 1.0) -> Float[Tensor, " A"]:
    """KL(softmax(teacher / T) || softmax(student logits)) over an anchor's candidates (Hinton et al. 2015).

    Args:
        contrast: its scale is the student's own 1 / temperature.
        teacher_temperature: T > 0; above 1 the teacher's shares are more even. It divides the teacher's
            scores alone, so the gradient by a logit is the student's share minus the teacher's at any T:
            the factor T^2, which makes up for a temperature that also divides the student's, has no place.

    Returns:
        The loss of each anchor in nats, 0 (up to rounding) where both agree, and where there is at most one
        candidate.

    Raises:
        InputError: the contrast has no `own` or no `teacher`.
    """
    assert teacher_temperature > 0, teacher_temperature
    own, teacher = _group(contrast)
    padding = own < 0
    # Lowest instead of -inf: 0 * -inf is no loss, and a group of padding alone has no softmax.
    lowest = torch.finfo(teacher.dtype).min
    student_logs = _logits(contrast, own).masked_fill(padding, lowest).log_softmax(dim=1)
    shares = (teacher / teacher_temperature).masked_fill(padding, lowest).softmax(dim=1)
    return kl_div(student_logs, shares, reduction="none").sum(dim=1)


def _group(contrast: Contrast) -> tuple[Int64[Tensor, "A K"], Float[Tensor, "A K"]]:
    # Columns of each anchor's candidates, -1 for what is none, and the teacher's scores.
    own, teacher = contrast.own, contrast.teacher
    if own is None or teacher is None:
        raise InputError(
            "distillation needs a teacher's scores of each anchor's own candidates, and this batch has none; "
            "give the contrast `own` and `teacher`, or take another objective"
        )
    nobodys = column_ids(contrast.bank)[own.clamp_min(0)] == -1
    dtype = torch.promote_types(contrast.anchors.dtype, torch.float32)
    own = own.masked_fill(nobodys & (own != contrast.targets[:, None]), -1)
    device = contrast.anchors.device
    return own.to(device, non_blocking=True), teacher.detach().to(device, dtype, non_blocking=True)


def _logits(contrast: Contrast, own: Int64[Tensor, "A K"]) -> Float[Tensor, "A K"]:
    bank = contrast.bank
    filled = [
        (start, part.vectors) for start, part in zip(bank.starts, bank.parts, strict=True) if len(part.ids)
    ]
    starts, vectors = zip(*filled, strict=True)
    dots: Tensor = _Dots.apply(own, starts, contrast.anchors, *vectors)  # type: ignore[no-untyped-call]
    logits = contrast.scale.to(dots.dtype) * dots
    return logits if contrast.bias is None else logits + contrast.bias.to(dots.dtype)


class _Dots(torch.autograd.Function):
    """Dot product of each anchor with the columns it names, 0 at padding, without keeping the A * K rows."""

    @staticmethod
    def forward(
        ctx: Any,
        own: Int64[Tensor, "A K"],
        starts: tuple[int, ...],
        anchors: Float[Tensor, "A D"],
        *parts: Float[Tensor, "_ D"],
    ) -> Float[Tensor, "A K"]:
        ctx.starts = starts
        ctx.save_for_backward(own, anchors, *parts)
        dtype = torch.promote_types(anchors.dtype, torch.float32)
        dots = torch.zeros(own.shape, dtype=dtype, device=own.device)
        for block in _blocks(own, anchors.shape[1]):
            for start, part in zip(starts, parts, strict=True):
                rows, _ = _rows(part, own[block] - start, dtype=dtype)
                dots[block] += (rows * anchors[block, None]).sum(dim=2)
        return dots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Float[Tensor, "A K"]) -> tuple[Tensor | None, ...]:
        own, anchors, *parts = ctx.saved_tensors
        needs_anchors, *needs_parts = ctx.needs_input_grad[2:]
        grad_anchors = torch.zeros_like(anchors, dtype=slopes.dtype)
        grad_parts = [
            torch.zeros_like(part, dtype=slopes.dtype) if needed else None
            for part, needed in zip(parts, needs_parts, strict=True)
        ]
        for block in _blocks(own, anchors.shape[1]):
            slope = slopes[block, :, None]
            for start, part, grad_part in zip(ctx.starts, parts, grad_parts, strict=True):
                places = own[block] - start
                rows, nearest = _rows(part, places, dtype=slopes.dtype)
                if needs_anchors:
                    grad_anchors[block] += (slope * rows).sum(dim=1)
                if grad_part is not None:
                    outside = (nearest != places)[:, :, None]
                    pull = (slope * anchors[block, None]).masked_fill(outside, 0.0)
                    grad_part.index_add_(0, nearest.flatten(), pull.flatten(0, 1))
        narrow = (None if g is None else g.to(part.dtype) for g, part in zip(grad_parts, parts, strict=True))
        return None, None, grad_anchors.to(anchors.dtype) if needs_anchors else None, *narrow


def _blocks(own: Int64[Tensor, "A K"], dim: int) -> Iterator[slice]:
    # Slices of anchors, so that their candidates' rows have few numbers.
    step = max(1, NUMBERS_AT_ONCE // max(1, own.shape[1] * dim))
    return (slice(low, low + step) for low in range(0, len(own), step))


def _rows(
    part: Float[Tensor, "C D"], places: Int64[Tensor, "a K"], *, dtype: torch.dtype
) -> tuple[Float[Tensor, "a K D"], Int64[Tensor, "a K"]]:
    # The rows at these places, zeros where the part has no such place, and the nearest places it does have.
    # A selection of the places that are in the part would wait for the device.
    nearest = places.clamp(0, len(part) - 1)
    return part[nearest].to(dtype).masked_fill((nearest != places)[:, :, None], 0.0), nearest

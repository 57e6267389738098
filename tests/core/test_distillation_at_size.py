from dataclasses import replace

import pytest
import torch
from slow_distillation import BOTH, SLOW, draw, loss_and_gradients
from slow_loops import converted, difference, leaves
from torch.utils._python_dispatch import TorchDispatchMode

from retrieval_cl.core import distillation
from retrieval_cl.core.contrast import Bank, Contrast, Part


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("numbers", [1, 70])
def test_the_size_of_the_blocks_changes_nothing(objective, numbers, monkeypatch):
    contrast = draw(num_anchors=9)
    wanted, references = loss_and_gradients(objective, contrast)
    monkeypatch.setattr(distillation, "NUMBERS_AT_ONCE", numbers)
    found, gradients = loss_and_gradients(objective, contrast)
    assert difference(found, wanted) < 1e-14
    for leaf, gradient, reference in zip(leaves(contrast), gradients, references, strict=True):
        assert leaf is contrast.bias or difference(gradient, reference) < 1e-13


class Largest(TorchDispatchMode):
    """Notes the most numbers in any tensor that an operation gives back."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("objective", BOTH)
def test_neither_a_queue_nor_all_groups_are_ever_copied(objective, monkeypatch):
    monkeypatch.setattr(distillation, "NUMBERS_AT_ONCE", 256)
    num_anchors, width, dim = 64, 4, 8
    random = torch.Generator().manual_seed(0)
    queue = Part(torch.randn(5000, dim, generator=random).bfloat16(), torch.arange(5000))
    keys = Part(torch.randn(num_anchors, dim, generator=random).requires_grad_(), torch.arange(num_anchors))
    contrast = Contrast(
        anchors=torch.randn(num_anchors, dim, generator=random).requires_grad_(),
        known=torch.zeros(num_anchors, 1).long(),
        bank=Bank((queue, keys)),
        targets=5000 + torch.arange(num_anchors),
        scale=torch.ones(1),
        own=torch.randint(0, 5000, (num_anchors, width), generator=random),
        teacher=torch.randn(num_anchors, width, generator=random),
    )
    contrast.own[:, 0] = contrast.targets
    with Largest() as largest:
        objective(contrast).sum().backward()
    # The ids of all columns are looked up; vectors are [5000, 8], and all groups [64, 4, 8].
    assert largest.numbers <= 5000 + num_anchors
    largest = Largest()
    few = replace(contrast, bank=Bank((Part(queue.vectors[:50], queue.ids[:50]), keys)))
    few = replace(few, targets=contrast.targets - 4950, own=(contrast.own - 4950).clamp_min(0))
    with largest:
        objective(few).sum().backward()
    assert largest.numbers < num_anchors * width * dim


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_float32(objective, dtype):
    contrast = draw(dtype=dtype, num_anchors=12, dim=16, scale=4.0)
    exact = replace(converted(contrast, torch.float64), teacher=contrast.teacher.double())
    found, gradients = loss_and_gradients(objective, contrast)
    wanted, references = loss_and_gradients(SLOW[objective], exact)
    assert found.dtype == torch.float32
    assert difference(found, wanted) < 1e-5
    for leaf, gradient, reference in zip(leaves(contrast), gradients, references, strict=True):
        # One rounding at the end, of the half precision that the leaf has.
        assert gradient.dtype == dtype
        assert leaf is contrast.bias or difference(gradient, reference) < torch.finfo(dtype).eps


@pytest.mark.parametrize("objective", BOTH)
def test_the_gradient_of_a_candidate_that_all_share_adds_up_in_float32(objective, monkeypatch):
    # Blocks of 10 anchors: the library may keep more digits within a block.
    monkeypatch.setattr(distillation, "NUMBERS_AT_ONCE", 960)
    contrast = draw(dtype=torch.bfloat16, num_anchors=3000, dim=16, scale=4.0)
    with torch.no_grad():
        contrast.anchors.abs_()
    contrast.own[:, 1] = 0
    contrast.targets[:] = 1
    contrast.own[:, 0] = 1
    teacher = contrast.teacher.clone()
    teacher[:, :2] = torch.tensor([8.0, 0.0])
    contrast = replace(contrast, teacher=teacher)
    exact = replace(converted(contrast, torch.float64), teacher=teacher.double())
    gradient, reference = (loss_and_gradients(objective, c)[1][2] for c in (contrast, exact))
    # A sum of 300 blocks of one sign in bfloat16 would be off by tens of percent.
    assert difference(gradient[:2], reference[:2]) < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("objective", BOTH)
def test_nothing_waits_for_the_device(objective):
    # On the meta device there are no values: whatever asks for one raises.
    contrast = draw()
    parts = tuple(
        Part(part.vectors.detach().to("meta").requires_grad_(), part.ids.to("meta"), shared=part.shared)
        for part in contrast.bank.parts
    )
    meta = replace(
        contrast,
        bank=Bank(parts),
        **{
            name: getattr(contrast, name).detach().to("meta")
            for name in ("anchors", "targets", "scale", "bias", "own", "teacher")
        },
    )
    objective(meta).sum().backward()
    assert all(part.vectors.grad.is_meta for part in parts)

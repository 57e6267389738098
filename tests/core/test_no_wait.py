"""Where ids lie on the host, nothing waits for the device: proven on meta tensors, which have no values."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from slow_loops import Options, draw_contrast, leaves

from retrieval_cl.core.contrast import Bank, Part
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid, weigh
from retrieval_cl.core.matryoshka import matryoshka
from retrieval_cl.core.queue import Queue

META = torch.device("meta")
OPTIONS = Options(
    bias=True, negatives=True, private=True, duplicates=True, padding=True, several_known=True, weights=True
)
OBJECTIVES = {
    "plain": info_nce,
    "symmetric": partial(info_nce, symmetric=True),
    "mean": partial(info_nce, symmetric=True, positives="mean", decoupled=True),
    "sum": partial(info_nce, symmetric=True, positives="sum"),
    "hard": partial(info_nce, hardness=0.5, debias=0.1),
    "guard": partial(info_nce, guard=Guard(fraction=0.9)),
    "bf16": partial(info_nce, compute_dtype=torch.bfloat16),
    "sigmoid": sigmoid,
    "matryoshka": matryoshka(info_nce, dims=[5, 2]),
}


def on_meta(contrast):
    def moved(x):
        return None if x is None else x.detach().to(META).requires_grad_(x.requires_grad)

    parts = tuple(replace(part, vectors=moved(part.vectors)) for part in contrast.bank.parts)
    return replace(
        contrast,
        anchors=moved(contrast.anchors),
        bank=Bank(parts),
        scale=moved(contrast.scale),
        bias=moved(contrast.bias),
        weights=moved(contrast.weights),
    )


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_loss_and_gradients_wait_for_nothing(monkeypatch, objective):
    # There is no autocast for meta tensors to switch off.
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    contrast = on_meta(draw_contrast(OPTIONS, seed=1, dtype=torch.float32))
    loss = weigh(objective(contrast), contrast.weights).mean()
    gradients = torch.autograd.grad(loss, leaves(contrast))
    assert all(gradient.device == META for gradient in gradients)


def test_ids_on_the_device_would_have_to_wait():
    contrast = on_meta(draw_contrast(Options(), seed=1, dtype=torch.float32))
    contrast = replace(contrast, known=contrast.known.to(META), targets=contrast.targets.to(META))
    parts = tuple(replace(part, ids=part.ids.to(META)) for part in contrast.bank.parts)
    with pytest.raises((RuntimeError, NotImplementedError)):
        info_nce(replace(contrast, bank=Bank(parts)))


def test_queue_keeps_its_ids_on_the_host_and_waits_for_nothing():
    queue = Queue(6, 3).to(META)
    assert queue.vectors.device == META
    queue.push(torch.zeros(4, 3, device=META), torch.arange(4))
    queue.push(torch.zeros(4, 3, device=META), torch.arange(4, 8))
    part = queue.part()
    assert part.ids.tolist() == [6, 7, 2, 3, 4, 5]
    assert isinstance(part, Part) and part.vectors.device == META

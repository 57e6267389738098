"""The engines of a GPU, interpreted, against the torch tiles."""

from dataclasses import replace

import pytest
import torch
from slow_loops import Options, converted, difference, draw_contrast, leaves

from retrieval_cl.core import tiles
from retrieval_cl.core.contrast import Bank
from retrieval_cl.core.engine import Demand
from retrieval_cl.core.engines import choose_engine
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.layout import TileSize
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.reductions import Count, LogSum, SoftplusSum
from retrieval_cl.core.tile_engine import TileEngine

pytest.importorskip("triton", reason="needs triton: install the extra kernels")

from retrieval_cl.core.kernels import engines
from retrieval_cl.core.kernels.engines import FlashEngine, SweepEngine

RICH = Options(
    negatives=True, private=True, duplicates=True, padding=True, several_known=True, frozen_part=True
)
OPTIONS = {
    "plain": {},
    "symmetric": {"symmetric": True},
    "mean": {"positives": "mean", "symmetric": True},
    "hardness": {"hardness": 0.6, "debias": 0.1, "symmetric": True},
    "guard": {"guard": Guard(margin=-0.2), "symmetric": True},
}


def results(contrast, **keywords):
    loss = info_nce(contrast, **keywords)
    return [loss, *torch.autograd.grad((loss * torch.arange(1, len(loss) + 1)).sum(), leaves(contrast))]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("keywords", OPTIONS.values(), ids=OPTIONS)
def test_sweep_equals_torch_tiles(monkeypatch, keywords, biased):
    monkeypatch.setattr(engines, "SWEEP_TILE", TileSize(16, 24))
    contrast = draw_contrast(
        replace(RICH, bias=biased), seed=1, num_anchors=21, dim=5, dtype=torch.float32, scale=8.0
    )
    wanted = results(contrast, **keywords)
    monkeypatch.setattr(tiles, "choose_engine", lambda demand, device: SweepEngine)
    for found, expected in zip(results(contrast, **keywords), wanted, strict=True):
        assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("options", [Options(), RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_flash_equals_torch_tiles(monkeypatch, options, symmetric):
    monkeypatch.setattr(engines, "FLASH_COLUMNS", 30)
    contrast = draw_contrast(options, seed=1, num_anchors=37, dim=5, dtype=torch.float32, scale=8.0)
    wanted = results(contrast, symmetric=symmetric)
    monkeypatch.setattr(tiles, "choose_engine", lambda demand, device: FlashEngine)
    for found, expected in zip(results(contrast, symmetric=symmetric), wanted, strict=True):
        assert difference(found, expected) < 1e-5


def test_no_gradient_is_computed_that_nobody_wants(monkeypatch):
    contrast = draw_contrast(Options(frozen_part=True), seed=1, num_anchors=9, dtype=torch.float32)
    contrast = replace(contrast, anchors=contrast.anchors.detach(), scale=contrast.scale.detach())
    wanted = results(contrast)
    for engine in (SweepEngine, FlashEngine):
        monkeypatch.setattr(tiles, "choose_engine", lambda demand, device, engine=engine: engine)
        found = results(contrast)
        assert len(found) == len(wanted) == 2
        assert difference(found[1], wanted[1]) < 1e-5


ENGINES = pytest.mark.parametrize("engine", [TileEngine, SweepEngine, FlashEngine])


@ENGINES
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("norm", [1e-15, 1e6, 1e15])
def test_rows_of_any_length_have_finite_gradients(monkeypatch, norm, symmetric, engine):
    monkeypatch.setattr(tiles, "choose_engine", lambda demand, device: engine)
    drawn = draw_contrast(RICH, seed=1, num_anchors=40, dim=64, dtype=torch.float32, scale=20.0)

    def longer(rows):
        return (rows.detach() * norm).requires_grad_(rows.requires_grad)

    parts = tuple(replace(part, vectors=longer(part.vectors)) for part in drawn.bank.parts)
    contrast = replace(drawn, anchors=longer(drawn.anchors), bank=Bank(parts))
    # Where logits are huge, those of one pair differ by far with the order of the factors.
    assert all(bool(found.isfinite().all()) for found in results(contrast, symmetric=symmetric))


@ENGINES
@pytest.mark.parametrize("dim", [1, 5])
def test_a_transposed_matrix_gives_the_same(monkeypatch, engine, dim):
    monkeypatch.setattr(tiles, "choose_engine", lambda demand, device: engine)
    drawn = draw_contrast(RICH, seed=1, num_anchors=9, dim=dim, dtype=torch.float32)

    def turned(rows):
        return rows.detach().T.contiguous().T.requires_grad_(rows.requires_grad)

    parts = tuple(replace(part, vectors=turned(part.vectors)) for part in drawn.bank.parts)
    contrast = replace(drawn, anchors=turned(drawn.anchors), bank=Bank(parts))
    for found, expected in zip(results(contrast), results(drawn), strict=True):
        assert difference(found, expected) < 1e-5


@ENGINES
@pytest.mark.parametrize("symmetric", [False, True])
def test_no_anchors_give_no_losses_and_zeros(monkeypatch, engine, symmetric):
    monkeypatch.setattr(tiles, "choose_engine", lambda demand, device: engine)
    drawn = draw_contrast(Options(negatives=True), seed=1, dtype=torch.float32)
    nobody = drawn.anchors.detach()[:0].requires_grad_()
    contrast = replace(drawn, anchors=nobody, known=drawn.known[:0], targets=drawn.targets[:0])
    loss, *gradients = results(contrast, symmetric=symmetric)
    assert loss.shape == (0,)
    assert [gradient.shape for gradient in gradients] == [leaf.shape for leaf in leaves(contrast)]
    assert not any(gradient.any() for gradient in gradients)


def demand(**changes):
    plain = Demand((LogSum(),), 256, torch.bfloat16, torch.float32, guarded=False, biased=False)
    return replace(plain, **changes)


def test_each_engine_takes_what_it_knows():
    assert FlashEngine.knows(demand())
    for change in (
        {"guarded": True},
        {"biased": True},
        {"dim": 768},
        {"dtype": torch.float32},
        {"reductions": (LogSum(1.5),)},
    ):
        assert not FlashEngine.knows(demand(**change))
        assert SweepEngine.knows(demand(**change))
    assert SweepEngine.knows(demand(reductions=(LogSum(1.5), LogSum(0.5), Count())))
    assert not SweepEngine.knows(demand(reductions=(SoftplusSum(),)))
    assert not SweepEngine.knows(demand(sum_dtype=torch.float64))


def test_the_host_never_chooses_an_interpreter():
    assert choose_engine(demand(), torch.device("cpu")) is TileEngine


def test_half_precision_products_of_the_kernels_stay_near_float32(monkeypatch):
    contrast = draw_contrast(RICH, seed=1, num_anchors=21, dim=5, dtype=torch.float32, scale=8.0)
    wanted = results(converted(contrast, torch.float64), symmetric=True)
    for engine in (SweepEngine, FlashEngine):
        monkeypatch.setattr(tiles, "choose_engine", lambda demand, device, engine=engine: engine)
        found = results(contrast, symmetric=True, compute_dtype=torch.bfloat16)
        for one, expected in zip(found, wanted, strict=True):
            assert difference(one, expected) < 0.03

"""The engines of a GPU, interpreted, against the torch tiles."""

from dataclasses import replace

import pytest
import torch
from slow_loops import Options, converted, difference, draw_contrast, leaves

from retrieval_cl.core import tiles
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

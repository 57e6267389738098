import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize, pdist

from retrieval_cl.core import health
from retrieval_cl.core.health import (
    alignment,
    effective_rank,
    ema_gap,
    gradient_norms,
    measure_health,
    queue_state,
    std_ratio,
    uniformity,
)
from retrieval_cl.core.momentum import MomentumTwin, constant_momentum
from retrieval_cl.core.queue import Queue


def gaussian(number, dim, seed=0):
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed))


def test_equal_rows_are_a_collapse_in_every_signal():
    rows = normalize(gaussian(1, 16), dim=1).expand(50, 16)
    found = measure_health(rows, rows)
    assert found.std_ratio == pytest.approx(0.0, abs=1e-6)
    assert found.effective_rank == pytest.approx(1.0)
    assert found.alignment == 0.0
    assert found.uniformity == pytest.approx(0.0, abs=1e-5)


def test_gaussian_rows_are_spread_evenly():
    rows = gaussian(4000, 32)
    assert float(std_ratio(rows)) == pytest.approx(1.0, abs=0.01)
    assert float(effective_rank(rows)) == pytest.approx(32, rel=0.01)


def test_orthonormal_rows_reach_the_closed_forms():
    rows = torch.eye(8, dtype=torch.float64)
    # Each coordinate is 1 once in 8 rows: a standard deviation of sqrt(7) / 8.
    assert float(std_ratio(rows)) == pytest.approx(math.sqrt(7) / 8 * math.sqrt(8))
    # Centring takes one of 8 directions; the others are equal.
    assert float(effective_rank(rows)) == pytest.approx(7.0)
    assert float(uniformity(rows)) == pytest.approx(-4.0)


def test_the_length_of_rows_does_not_matter_where_unit_rows_are_meant():
    rows, others = gaussian(20, 8), gaussian(20, 8, seed=1)
    assert float(std_ratio(5 * rows)) == pytest.approx(float(std_ratio(rows)), rel=1e-6)
    assert float(uniformity(5 * rows)) == pytest.approx(float(uniformity(rows)), rel=1e-6)
    assert float(alignment(5 * rows, others)) == pytest.approx(float(alignment(rows, others)), rel=1e-6)


def test_a_direction_shared_by_all_rows_is_no_rank():
    plane = torch.cat([gaussian(200, 2), torch.zeros(200, 6)], dim=1)
    assert float(effective_rank(plane + 100.0)) == pytest.approx(float(effective_rank(plane)), rel=1e-3)
    assert 1.0 < float(effective_rank(plane)) <= 2.0


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_effective_rank_equals_its_definition_by_singular_values(shape):
    rows = gaussian(*shape).double()
    singular = torch.linalg.svdvals(rows - rows.mean(dim=0))
    share = [float(value / singular.sum()) for value in singular if value > 1e-10]
    wanted = math.exp(-sum(p * math.log(p) for p in share))
    assert float(effective_rank(rows)) == pytest.approx(wanted, rel=1e-10)


def test_opposite_rows_are_at_alignment_4():
    rows = gaussian(10, 4)
    assert float(alignment(rows, -rows)) == pytest.approx(4.0)


def test_uniformity_equals_its_definition_over_pairs_in_any_blocks(monkeypatch):
    rows = gaussian(30, 5).double()
    wanted = float(pdist(normalize(rows, dim=1)).square().mul(-2).exp().mean().log())
    assert float(uniformity(rows)) == pytest.approx(wanted, rel=1e-12)
    monkeypatch.setattr(health, "PAIR_BLOCK", 7)
    assert float(uniformity(rows)) == pytest.approx(wanted, rel=1e-12)


def test_one_row_has_no_pairs_and_no_spread():
    row = gaussian(1, 5)
    assert (float(uniformity(row)), float(std_ratio(row)), float(effective_rank(row))) == (0.0, 0.0, 1.0)


def test_health_reports_the_worse_side():
    spread, collapsed = gaussian(100, 8), torch.ones(100, 8)
    for anchors, positives in [(spread, collapsed), (collapsed, spread)]:
        found = measure_health(anchors, positives)
        assert found.std_ratio < 1e-6
        assert found.effective_rank == pytest.approx(1.0)
        assert found.uniformity == pytest.approx(0.0, abs=1e-5)


def two_heads():
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(4, 3), "predictor": nn.Linear(3, 2)}).double()


def slow_norm(tensors):
    return math.sqrt(sum(float(value) ** 2 for tensor in tensors for value in tensor.detach().flatten()))


def test_gradient_norms_are_those_of_each_head():
    heads = two_heads()
    heads["predictor"](heads["encoder"](torch.ones(5, 4, dtype=torch.float64))).square().sum().backward()
    heads["encoder"].bias.grad = None
    groups = {name: list(head.parameters()) for name, head in heads.items()}
    found = gradient_norms(groups | {"frozen": [nn.Parameter(torch.ones(2))]})
    for name, group in groups.items():
        wanted = slow_norm([p.grad for p in group if p.grad is not None])
        assert float(found[name]) == pytest.approx(wanted, rel=1e-12) and wanted > 0
    assert float(found["frozen"]) == 0.0


def test_gap_of_a_twin_is_the_share_of_the_weights_that_it_is_behind():
    heads = two_heads()
    twin = MomentumTwin(heads, constant_momentum(0.9))
    assert float(ema_gap(heads, twin.module)) == 0.0
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter *= 2
    assert float(ema_gap(heads, twin.module)) == pytest.approx(0.5, rel=1e-12)
    twin.update(heads, progress=0.0)
    assert float(ema_gap(heads, twin.module)) == pytest.approx(0.45, rel=1e-12)
    with torch.no_grad():
        heads["encoder"].bias += 1.0
    ours, theirs = list(heads.parameters()), list(twin.module.parameters())
    wanted = slow_norm([a - b for a, b in zip(ours, theirs, strict=True)]) / slow_norm(ours)
    assert float(ema_gap(heads, twin.module)) == pytest.approx(wanted, rel=1e-12)


def test_norms_and_gap_wait_for_nothing():
    # Tensors on the meta device have no values to wait for: looking at one raises.
    heads, twin = two_heads().to("meta"), two_heads().to("meta")
    for parameter in heads.parameters():
        parameter.grad = torch.empty_like(parameter)
    assert gradient_norms({"all": heads.parameters()})["all"].device.type == "meta"
    assert ema_gap(heads, twin).device.type == "meta"


@pytest.mark.parametrize(("size", "rows"), [(8, 4), (7, 3), (3, 5), (5, 5), (6, 1)])
def test_age_and_fill_equal_those_of_rows_that_carry_their_step(size, rows):
    queue = Queue(size, 2)
    empty = queue_state(queue, rows_per_push=rows)
    assert (empty.fill, empty.mean_age, empty.max_age) == (0.0, 0.0, 0)
    for step in range(6):
        queue.push(torch.zeros(rows, 2), torch.full((rows,), step))
        ages = [step - born for born in queue.part().ids.tolist()]
        found = queue_state(queue, rows_per_push=rows)
        assert found.fill == len(ages) / size
        assert found.mean_age == pytest.approx(sum(ages) / len(ages), rel=1e-12)
        assert found.max_age == max(ages)

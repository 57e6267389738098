import math

import pytest
import torch

from retrieval_cl.core.logsums import NATS_PER_BIT
from retrieval_cl.core.reductions import Count, LogSum, SoftplusSum, Total


def log_sum(exponent):
    return lambda t: torch.logsumexp(t * exponent * NATS_PER_BIT, -1) / NATS_PER_BIT


# Each reduction and its definition, over logits in bits without any -inf.
DEFINITIONS = {
    LogSum(): log_sum(1.0),
    LogSum(1.7): log_sum(1.7),
    LogSum(0.3): log_sum(0.3),
    SoftplusSum(): lambda t: torch.log1p((t * NATS_PER_BIT).exp()).sum(-1) / NATS_PER_BIT,
    Count(): lambda t: torch.full(t.shape[:-1], float(t.shape[-1]), dtype=t.dtype),
    Total(): lambda t: t.sum(-1),
}
EACH = pytest.mark.parametrize("reduction", DEFINITIONS, ids=str)


def draw(*shape, spread=1.0):
    random = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=random, dtype=torch.float64) * spread


def summed(reduction, values, *, width=5):
    running = reduction.start(len(values), like=values)
    for block in reversed(values.split(width, dim=1)):
        running.add(block.clone(), slice(0, len(values)), scratch=torch.empty_like(block))
    return running.value()


@EACH
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_blocks_in_any_order_sum_to_the_definition(reduction, spread):
    values = draw(4, 13, spread=spread)
    assert torch.allclose(summed(reduction, values), DEFINITIONS[reduction](values), rtol=1e-13)


@EACH
def test_what_is_no_negative_adds_nothing(reduction):
    values = draw(4, 13)
    gaps = torch.full((4, 6), -torch.inf, dtype=torch.float64)
    mixed = torch.cat([gaps, values[:, :7], gaps, values[:, 7:]], dim=1)
    assert torch.allclose(summed(reduction, mixed), DEFINITIONS[reduction](values), rtol=1e-13)
    nothing = -math.inf if isinstance(reduction, LogSum) else 0.0
    assert summed(reduction, gaps).tolist() == [nothing] * 4


@EACH
def test_a_block_is_kept_unless_it_is_its_own_scratch(reduction):
    values = draw(4, 5)
    kept, spent = values.clone(), values.clone()
    one, two = reduction.start(4, like=values), reduction.start(4, like=values)
    one.add(kept, slice(0, 4), scratch=torch.empty_like(kept))
    two.add(spent, slice(0, 4), scratch=spent)
    assert torch.equal(kept, values)
    assert torch.equal(one.value(), two.value())


@EACH
def test_rows_are_summed_apart(reduction):
    values = draw(4, 5)
    running = reduction.start(4, like=values)
    running.add(values[1:3].clone(), slice(1, 3), scratch=torch.empty(2, 5, dtype=torch.float64))
    assert torch.equal(running.value()[1:3], summed(reduction, values[1:3]))
    assert torch.equal(running.value()[[0, 3]], reduction.start(2, like=values).value())


@EACH
def test_groups_and_joined_parts_equal_the_whole(reduction):
    values = draw(13)
    groups = torch.tensor([0, 2, 2, 0, 3, 3, 3, 2, 0, 2, 3, 3, 0])
    grouped = reduction.grouped(values, groups, num_groups=4)
    for group in (0, 2, 3):
        assert torch.allclose(grouped[group], DEFINITIONS[reduction](values[groups == group]), rtol=1e-13)
    empty = reduction.start(1, like=values).value()
    assert torch.equal(grouped[1:2], empty)
    joined = reduction.join(*(summed(reduction, part[None]) for part in values.split(8)))
    assert torch.allclose(joined, DEFINITIONS[reduction](values[None]), rtol=1e-13)
    assert torch.equal(reduction.join(joined, empty), joined)
    assert torch.equal(reduction.join(empty, empty), empty)


@EACH
def test_sums_of_ranks_in_nats_make_the_sum_over_all_with_gradient(reduction):
    values = draw(3, 2, 5)
    per_rank = torch.stack([DEFINITIONS[reduction](rank) for rank in values]) * reduction.unit
    per_rank.requires_grad_()
    whole = DEFINITIONS[reduction](values.transpose(0, 1).reshape(2, 15)) * reduction.unit
    found = reduction.over_ranks(per_rank)
    assert torch.allclose(found, whole, rtol=1e-13)
    gradient = torch.autograd.grad(found.sum(), per_rank)[0]
    shares = (per_rank - whole).exp() if isinstance(reduction, LogSum) else torch.ones(3, 2)
    assert torch.allclose(gradient, shares.double(), rtol=1e-12)


@EACH
@pytest.mark.parametrize("spread", [1.0, 30.0])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_slope_is_the_derivative_of_the_definition(reduction, spread, in_place):
    values = draw(4, 7, spread=spread).requires_grad_()
    sums = DEFINITIONS[reduction](values)
    wanted = torch.zeros_like(values)
    if reduction.differentiable:
        wanted = torch.autograd.grad(sums.sum(), values)[0]
    logits = values.detach().clone()
    out = logits if in_place else torch.empty_like(logits)
    found = reduction.slope(logits, sums.detach()[:, None], out=out)
    assert found is out
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-15)
    if not in_place:
        assert torch.equal(logits, values)


@EACH
def test_no_slope_where_there_is_no_negative(reduction):
    logits = torch.full((2, 3), -torch.inf, dtype=torch.float64)
    logits[0, 1] = 0.5
    sums = summed(reduction, logits)
    found = reduction.slope(logits, sums[:, None], out=torch.empty_like(logits))
    assert found[0, [0, 2]].tolist() == [0.0, 0.0]
    assert found[1].tolist() == [0.0] * 3


@EACH
def test_a_shift_of_all_logits_moves_the_sum_as_promised(reduction):
    values = draw(4, 7)
    gained = DEFINITIONS[reduction](values + 0.25) - DEFINITIONS[reduction](values)
    if reduction.differentiable and reduction.shift_slope is None:
        assert float(gained.std()) > 1e-3
    elif reduction.differentiable:
        assert torch.allclose(gained, torch.full_like(gained, 0.25 * reduction.shift_slope), rtol=1e-12)
    else:
        assert reduction.shift_slope == 0.0


@pytest.mark.parametrize("logit", [-1e30, -1e4, 1e4, 1e30])
@pytest.mark.parametrize("reduction", [each for each in DEFINITIONS if each.differentiable], ids=str)
def test_extreme_logits_give_finite_sums_and_slopes(reduction, logit):
    logits = torch.tensor([[logit, logit / 2, -torch.inf]])
    sums = summed(reduction, logits)
    slopes = reduction.slope(logits, sums[:, None], out=torch.empty_like(logits))
    assert bool(sums.isfinite().all() and slopes.isfinite().all())
    assert bool((slopes >= 0).all())

import math

import pytest
import torch

from retrieval_cl.core.logsums import (
    RunningSum,
    add_logs,
    finite,
    grouped_log_sum,
    grouped_logsumexp,
    safe_logsumexp,
)


def reference(values, dim):
    return torch.logsumexp(values * math.log(2), dim) / math.log(2)


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_blocks_in_any_order_give_the_log_sum_exp_of_the_whole(spread):
    values = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * spread
    running = RunningSum.start(5, like=values)
    for block in reversed(values.split(5, dim=1)):
        running.add(block, slice(0, 5), scratch=torch.empty_like(block))
    assert torch.allclose(running.value(), reference(values, 1), rtol=1e-14)


def test_a_block_may_serve_as_its_own_scratch_and_else_is_kept():
    values = torch.randn(3, 4, dtype=torch.float64)
    kept, spent = values.clone(), values.clone()
    one, two = RunningSum.start(3, like=values), RunningSum.start(3, like=values)
    one.add(kept, slice(0, 3), scratch=torch.empty_like(kept))
    two.add(spent, slice(0, 3), scratch=spent)
    assert torch.equal(kept, values)
    assert torch.equal(one.value(), two.value())


def test_rows_of_minus_infinity_stay_there_and_do_not_spoil_what_comes_later():
    nothing = torch.full((2, 3), -torch.inf)
    running = RunningSum.start(2, like=nothing)
    running.add(nothing.clone(), slice(0, 2), scratch=nothing.clone())
    assert torch.equal(running.value(), torch.full((2,), -torch.inf))
    running.add(torch.zeros(1, 4), slice(1, 2), scratch=torch.zeros(1, 4))
    assert running.value().tolist() == [-math.inf, 2.0]


def test_groups_sum_their_own_values_and_an_empty_group_is_minus_infinity():
    values = torch.tensor([3.0, 3.0, -5000.0, 1.0], dtype=torch.float64)
    found = grouped_log_sum(values, torch.tensor([2, 2, 0, 3]), num_groups=5)
    assert found.tolist() == [-5000.0, -math.inf, 4.0, 1.0, -math.inf]


def test_finite_replaces_minus_infinity_alone():
    assert finite(torch.tensor([-torch.inf, -3.0, 0.0])).tolist() == [0.0, -3.0, 0.0]


@pytest.mark.parametrize("exponent", [0.25, 3.0])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_an_exponent_multiplies_every_value(exponent, spread):
    values = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * spread
    running = RunningSum.start(5, like=values, exponent=exponent)
    for block in values.split(5, dim=1):
        running.add(block, slice(0, 5), scratch=torch.empty_like(block))
    assert torch.allclose(running.value(), reference(values * exponent, 1), rtol=1e-14)


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_groups_in_nats_have_the_gradient_of_a_softmax(spread):
    values = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * spread
    values.requires_grad_()
    groups = torch.tensor([3, 0, 3, 3, 1, 0])
    found = grouped_logsumexp(values, groups, num_groups=4)
    assert float(found[2].detach()) == -math.inf
    wanted = torch.stack([torch.logsumexp(values[groups == group], 0) for group in (0, 1, 3)])
    assert torch.allclose(found[[0, 1, 3]], wanted, rtol=1e-14)
    weights = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    gradients = [torch.autograd.grad((each * weights).sum(), values) for each in (found[[0, 1, 3]], wanted)]
    assert torch.allclose(*(gradient for (gradient,) in gradients), rtol=1e-12)


def test_an_empty_group_gives_no_gradient_to_others():
    values = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = grouped_logsumexp(values, torch.tensor([0, 0]), num_groups=2)
    assert torch.autograd.grad(found[1], values)[0].tolist() == [0.0, 0.0]


def test_a_sum_of_nothing_but_nothing_is_nothing():
    nothing = torch.tensor([-math.inf])
    assert add_logs(nothing, nothing).tolist() == [-math.inf]
    assert add_logs(nothing, torch.tensor([3.0])).tolist() == [3.0]


def test_a_column_of_minus_infinity_has_no_gradient_and_leaves_the_others_theirs():
    values = torch.tensor([[-math.inf, 1.0], [-math.inf, -math.inf]], requires_grad=True)
    found = safe_logsumexp(values)
    assert found.tolist() == [-math.inf, 1.0]
    assert torch.autograd.grad(found.sum(), values)[0].tolist() == [[0.0, 1.0], [0.0, 0.0]]

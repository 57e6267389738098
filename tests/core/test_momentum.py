import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retrieval_cl.core.momentum import MomentumTwin, constant_momentum, cosine_momentum


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def move(module, seed):
    """Stands in for an optimiser's step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def test_twin_starts_equal_and_shares_no_memory():
    module = build()
    twin = MomentumTwin(module, constant_momentum(0.9))
    for mine, own in zip(twin.module.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, own) and mine.data_ptr() != own.data_ptr()
        assert not mine.requires_grad and own.requires_grad
    before = [value.clone() for value in twin.module.parameters()]
    move(module, 1)
    assert all(torch.equal(a, b) for a, b in zip(twin.module.parameters(), before, strict=True))


def test_twin_equals_the_sum_over_all_past_weights():
    """Unrolled: m^n of the first weights, and (1 - m) m^(n-i) of those after step i."""
    module, momentum, steps = build(), 0.7, 9
    twin = MomentumTwin(module, constant_momentum(momentum))
    expected = [momentum**steps * parameter.detach().clone() for parameter in module.parameters()]
    for step in range(1, steps + 1):
        move(module, step)
        twin.update(module, progress=(step - 1) / steps)
        share = (1 - momentum) * momentum ** (steps - step)
        for total, parameter in zip(expected, module.parameters(), strict=True):
            total += share * parameter.detach()
    for mine, total in zip(twin.module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("momentum", "kept"), [(0.0, False), (1.0, True)])
def test_ends_of_the_range_copy_or_keep_to_the_bit(momentum, kept):
    module = build()
    twin = MomentumTwin(module, constant_momentum(momentum))
    before = copy.deepcopy(twin.module)
    move(module, 1)
    twin.update(module, progress=0.5)
    for mine, expected in zip(
        twin.module.parameters(), (before if kept else module).parameters(), strict=True
    ):
        assert torch.equal(mine, expected)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_cosine_rises_from_its_base_to_one(base, early, late):
    momentum, (early, late) = cosine_momentum(base), sorted((early, late))
    assert momentum(0.0) == pytest.approx(base, abs=1e-15) and momentum(1.0) == 1.0
    assert base - 1e-15 <= momentum(early) <= momentum(late) + 1e-15


def test_cosine_is_that_of_the_paper():
    """tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2, of step k of K."""
    for step in range(8):
        expected = 1 - (1 - 0.996) * (math.cos(math.pi * step / 8) + 1) / 2
        assert cosine_momentum(0.996)(step / 8) == expected
    assert cosine_momentum(0.9)(0.5) == pytest.approx(0.95)


def test_progress_reaches_the_update():
    module = build()
    late, early = (MomentumTwin(module, cosine_momentum(0.5)) for _ in range(2))
    first = module[0].weight.detach().clone()
    move(module, 1)
    early.update(module, progress=0.0)
    late.update(module, progress=0.5)
    torch.testing.assert_close(early.module[0].weight, first / 2 + module[0].weight / 2)
    torch.testing.assert_close(late.module[0].weight, 0.75 * first + 0.25 * module[0].weight)


def test_running_statistics_are_the_twins_own():
    module = build()
    twin = MomentumTwin(module, constant_momentum(0.5))
    module(torch.randn(8, 3).double() + 5)
    twin.update(module, progress=0.0)
    assert torch.equal(twin.module[1].running_mean, torch.zeros(4).double())
    rows = torch.randn(8, 3).double()
    twin(rows)
    torch.testing.assert_close(twin.module[1].running_mean, 0.1 * twin.module[0](rows).mean(dim=0))
    held = twin.module[1].running_mean.clone()
    twin.update(module, progress=0.0)
    assert torch.equal(twin.module[1].running_mean, held)


def test_statistics_of_a_pass_in_training_are_those_of_its_own_rows():
    module = build()
    twin = MomentumTwin(module, constant_momentum(0.5))
    rows = torch.randn(8, 3).double()
    assert torch.equal(twin.train()(rows), module.train()(rows))
    assert not torch.equal(twin.eval()(rows), twin.train()(rows))


def test_update_writes_in_place_and_passes_no_gradient():
    module = build()
    twin = MomentumTwin(module, constant_momentum(0.5))
    places = [parameter.data_ptr() for parameter in twin.module.parameters()]
    move(module, 1)
    twin.update(module, progress=0.0)
    assert [parameter.data_ptr() for parameter in twin.module.parameters()] == places
    assert not twin(torch.randn(4, 3).double()).requires_grad
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_loaded_twin_goes_on_in_the_same_bits():
    module = build()
    whole = MomentumTwin(module, cosine_momentum(0.9))
    for step in range(3):
        move(module, step)
        whole.update(module, progress=step / 6)
    resumed = MomentumTwin(build(seed=5), cosine_momentum(0.9))
    resumed.load_state_dict(whole.state_dict())
    for step in range(3, 6):
        move(module, step)
        for twin in (whole, resumed):
            twin.update(module, progress=step / 6)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)

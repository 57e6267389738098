import copy

import pytest
import torch

from retrieval_cl.training.lars import Lars

SHAPES = [(4, 3), (5,), (2, 3, 3, 3), (1,), (3, 2)]
SETTINGS = [
    {"lr": 0.3, "weight_decay": 1e-2},
    {"lr": 0.3, "weight_decay": 1e-2, "clip": True, "eta": 0.02},
    {"lr": 1e-4, "weight_decay": 1e-2, "clip": True, "eta": 0.02},
    {"lr": 2.0, "momentum": 0.0, "eta": 0.5},
]


def draw(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def slow_lars(weights, gradients, velocities, *, lr, momentum=0.9, weight_decay=0.0, eta=1e-3, clip=False):
    """One parameter after the other, with tests of the values."""
    for weight, gradient, velocity in zip(weights, gradients, velocities, strict=True):
        update = gradient.clone()
        if weight.ndim > 1:
            update += weight_decay * weight
            length, size = float(update.norm()), float(weight.norm())
            if length > 0 and size > 0:
                share = eta * size / length
                update *= min(share / lr, 1.0) if clip else share
        velocity.mul_(momentum).add_(update)
        weight.sub_(lr * velocity)


def parameters_of(weights):
    return [torch.nn.Parameter(weight.clone()) for weight in weights]


@pytest.mark.parametrize("settings", SETTINGS)
def test_steps_equal_a_loop_over_the_parameters(settings):
    weights = draw(0)
    weights[4].zero_()
    parameters, velocities = parameters_of(weights), [torch.zeros_like(weight) for weight in weights]
    optimizer = Lars(parameters, **settings)
    for step in range(1, 6):
        gradients = draw(step)
        if step == 3:
            # The decay alone moves it; without decay its update has norm 0.
            gradients[0].zero_()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        slow_lars(weights, gradients, velocities, **settings)
    for parameter, weight in zip(parameters, weights, strict=True):
        assert (parameter - weight).abs().max() < 1e-12 * weight.abs().max()


def test_clipping_changes_only_shares_above_the_rate():
    found = {}
    for lr in (1e-4, 10.0):
        for clip in (False, True):
            (parameter,) = parameters_of(draw(0, [(4, 3)]))
            parameter.grad = draw(1, [(4, 3)])[0]
            before = parameter.detach().clone()
            Lars([parameter], lr=lr, eta=0.02, clip=clip).step()
            found[lr, clip] = float((parameter.detach() - before).norm())
    gradient, weight = draw(1, [(4, 3)])[0], draw(0, [(4, 3)])[0]
    share = 0.02 * weight.norm() / gradient.norm()
    assert found[1e-4, True] == pytest.approx(float(1e-4 * gradient.norm()))
    assert found[10.0, True] == pytest.approx(float(share * gradient.norm()))
    assert found[10.0, False] == pytest.approx(float(10 * share * gradient.norm()))


def test_first_step_moves_a_layer_by_its_share_whatever_the_gradient():
    for factor in (1e-6, 1.0, 1e6):
        (parameter,) = parameters_of(draw(0, [(4, 3)]))
        before = parameter.detach().clone()
        parameter.grad = factor * draw(1, [(4, 3)])[0]
        Lars([parameter], lr=0.5, eta=0.1).step()
        assert float((parameter.detach() - before).norm() / before.norm()) == pytest.approx(0.05)


def test_norms_and_biases_are_neither_decayed_nor_adapted():
    (bias,) = parameters_of(draw(0, [(5,)]))
    before, gradient = bias.detach().clone(), draw(1, [(5,)])[0]
    bias.grad = gradient
    Lars([bias], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(bias.detach(), before - 0.5 * gradient, rtol=1e-14, atol=0)


def test_state_loads_back_to_the_same_bits():
    first = parameters_of(draw(0))
    optimizer = Lars(first, lr=0.3, weight_decay=1e-2)
    second, other = None, None
    for step in range(1, 5):
        if step == 3:
            second = parameters_of([parameter.detach() for parameter in first])
            other = Lars(second, lr=0.7)
            # torch hands over the tensors themselves.
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for parameters, one in ((first, optimizer), (second, other)):
            if one is not None:
                for parameter, gradient in zip(parameters, draw(step), strict=True):
                    parameter.grad = gradient
                one.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_parameter_without_gradient_stays_and_gets_no_state():
    used, unused = parameters_of(draw(0, [(4, 3), (4, 3)]))
    before = unused.detach().clone()
    used.grad = torch.ones_like(used)
    optimizer = Lars([used, unused], lr=0.3, weight_decay=0.1)
    optimizer.step()
    assert torch.equal(unused, before) and unused not in optimizer.state


@pytest.mark.parametrize("clip", [False, True])
def test_step_waits_for_nothing(clip):
    # Tensors on the meta device have no values to wait for: looking at one raises.
    parameters = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = Lars(parameters, lr=0.3, weight_decay=1e-2, clip=clip)
    for _ in range(2):
        optimizer.step()
    assert all(optimizer.state[p]["momentum_buffer"].device.type == "meta" for p in parameters)

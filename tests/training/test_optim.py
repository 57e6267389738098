import math
from itertools import pairwise

import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.optim import build_optimizer, rate_share, set_rate


def test_only_matrices_decay(make_method):
    method = make_method()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    optimizer = build_optimizer(method, TrainingConfig(lr=0.1, weight_decay=0.5))
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in method.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)
    assert {p.ndim for p in method.parameters()} == {1, 2}


def test_temperature_has_its_own_rate(make_method):
    method = make_method()
    optimizer = build_optimizer(method, TrainingConfig(lr=0.1, temperature_lr=0.02))
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates.pop("temperature.log_scale") == 0.02
    assert set(rates.values()) == {0.1}
    assert set(rates) | {"temperature.log_scale"} == {name for name, _ in method.named_parameters()}


def test_rate_of_a_fixed_temperature_is_refused(make_method):
    with pytest.raises(InputError, match="temperature_lr has no effect"):
        build_optimizer(make_method(learned=False), TrainingConfig(temperature_lr=0.02))


def test_nothing_to_train_is_refused(make_method):
    method = make_method().requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        build_optimizer(method, TrainingConfig())


def test_frozen_parameters_stay_out(make_method):
    method = make_method(learned=False)
    method.encoder.words.requires_grad_(False)
    optimizer = build_optimizer(method, TrainingConfig())
    names = {name for group in optimizer.param_groups for name in group["names"]}
    assert names == {"encoder.norm.weight", "encoder.norm.bias", "encoder.layer.weight", "encoder.layer.bias"}


def test_step_equals_adamw_by_the_book(make_method):
    method = make_method(dropout=0.0)
    config = TrainingConfig(lr=0.05, weight_decay=0.1)
    optimizer = build_optimizer(method, config)
    weight = method.encoder.layer.weight
    expected, first, second = weight.detach().clone().double(), 0.0, 0.0
    for step in range(1, 4):
        gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
        weight.grad = gradient
        optimizer.step()
        gradient = gradient.double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = (second / (1 - 0.999**step)).sqrt()
        expected = expected * (1 - 0.05 * 0.1) - 0.05 * (first / (1 - 0.9**step)) / (root + 1e-8)
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def step_with_gradients(method, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    gradients = {name: p.grad.clone() for name, p in method.named_parameters()}
    optimizer.step()
    return gradients


@pytest.mark.parametrize("decays", ["matrices", "all"])
def test_sgd_by_the_book_decays_what_it_is_told(make_method, decays):
    method = make_method()
    config = TrainingConfig(optimizer="sgd", lr=0.05, momentum=0.8, weight_decay=0.1, decays=decays)
    optimizer = build_optimizer(method, config)
    expected = {name: p.detach().clone() for name, p in method.named_parameters()}
    velocity = dict.fromkeys(expected, 0.0)
    for step in range(3):
        for name, gradient in step_with_gradients(method, optimizer, step).items():
            decayed = expected[name].ndim == 2 or (decays == "all" and "temperature" not in name)
            velocity[name] = 0.8 * velocity[name] + gradient + decayed * 0.1 * expected[name]
            expected[name] = expected[name] - 0.05 * velocity[name]
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_lars_gets_its_settings_and_adapts_matrices_alone(make_method):
    method = make_method()
    config = TrainingConfig(optimizer="lars", lr=0.5, weight_decay=0.1, lars_eta=0.02, max_grad_norm=None)
    optimizer = build_optimizer(method, config)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    for name, gradient in step_with_gradients(method, optimizer, 0).items():
        moved = before[name] - method.get_parameter(name).detach()
        if moved.ndim == 2:
            assert float(moved.norm()) == pytest.approx(0.5 * 0.02 * float(before[name].norm()), rel=1e-4)
        else:
            torch.testing.assert_close(moved, 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_adam_has_the_betas_and_the_epsilon_of_the_settings(make_method):
    config = TrainingConfig(betas=(0.9, 0.98), adam_eps=1e-6)
    group = build_optimizer(make_method(), config).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.98), 1e-6)


def test_rate_grows_with_the_batch_by_the_linear_rule(make_method):
    config = TrainingConfig(lr=0.03, batch_size=512, lr_reference_batch=256, temperature_lr=0.01)
    rates = {group["initial_lr"] for group in build_optimizer(make_method(), config).param_groups}
    assert rates == {0.06, 0.01}
    assert TrainingConfig(lr=0.03, batch_size=512).peak_lr == 0.03


RECIPES = {
    "SimCLR, ImageNet": {"optimizer": "lars", "lr": 0.3, "lr_reference_batch": 256, "weight_decay": 1e-6},
    "MoCo v2, ImageNet": {"optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4, "decays": "all"},
    "MoCo v3, ViT": {"optimizer": "adamw", "lr": 1.5e-4, "lr_reference_batch": 256, "weight_decay": 0.1},
    "BYOL, ImageNet": {"optimizer": "lars", "lr": 0.2, "lr_reference_batch": 256, "weight_decay": 1.5e-6},
    "dkobak, CIFAR-10": {
        "optimizer": "sgd", "lr": 0.03, "lr_reference_batch": 256, "weight_decay": 5e-4, "decays": "all"
    },
    "lightly, CIFAR-10": {
        "optimizer": "sgd", "lr": 0.06, "lr_reference_batch": 128, "weight_decay": 5e-4, "decays": "all"
    },
    "solo-learn, CIFAR-10": {
        "optimizer": "lars", "lr": 0.4, "weight_decay": 1e-4, "lars_eta": 0.02, "lars_clip": True
    },
    "CLIP": {"optimizer": "adamw", "lr": 5e-4, "betas": (0.9, 0.98), "adam_eps": 1e-6, "weight_decay": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_recipes_of_papers_can_be_said_and_take_a_step(make_method, settings):
    method = make_method()
    optimizer = build_optimizer(method, TrainingConfig(**settings))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    step_with_gradients(method, optimizer, 0)
    assert all(not torch.equal(p, before[name]) for name, p in method.named_parameters())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rate_rises_to_its_peak_and_falls_towards_zero(schedule):
    shares = [rate_share(step, steps=100, warmup_steps=10, schedule=schedule) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1.0
    assert all(a < b for a, b in pairwise(shares[:10]))
    if schedule == "constant":
        assert set(shares[9:]) == {1.0}
    else:
        assert all(a > b for a, b in pairwise(shares[10:]))
        assert 0 < shares[-1] < 0.02


def test_schedule_equals_its_formula_half_way():
    assert rate_share(55, steps=100, warmup_steps=10, schedule="cosine") == pytest.approx(0.5)
    assert rate_share(55, steps=100, warmup_steps=10, schedule="linear") == pytest.approx(0.5)
    assert rate_share(25, steps=100, warmup_steps=0, schedule="cosine") == pytest.approx(
        (1 + math.cos(math.pi / 4)) / 2
    )


def test_no_warm_up_starts_at_the_peak():
    assert rate_share(0, steps=10, warmup_steps=0, schedule="linear") == 1.0


def test_every_group_follows_the_schedule(make_method):
    config = TrainingConfig(lr=0.1, temperature_lr=0.02, warmup_share=0.1, schedule="linear")
    optimizer = build_optimizer(make_method(), config)
    set_rate(optimizer, config, step=55, steps=100)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.05, 0.01}

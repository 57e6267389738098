import math

import pytest
import torch

from retrieval_cl.core.temperature import Bias, Temperature


def test_the_scale_is_one_over_the_temperature_in_shape_1():
    scale = Temperature(0.05).scale()
    assert scale.shape == (1,)
    assert float(scale) == pytest.approx(20.0, rel=1e-6)


def test_a_fixed_temperature_is_not_trained_and_has_no_range():
    temperature = Temperature(1e-4)
    assert not temperature.scale().requires_grad
    assert float(temperature.scale()) == pytest.approx(1e4, rel=1e-5)


def test_a_learned_scale_gets_the_gradient_of_its_log():
    temperature = Temperature(0.05, learned=True)
    temperature.scale().sum().backward()
    assert float(temperature.log_scale.grad) == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize(("log_scale", "kept"), [(9.0, 100.0), (-9.0, 2.0)])
def test_a_learned_scale_stays_in_its_range_and_can_come_back(log_scale, kept):
    temperature = Temperature(0.05, learned=True, min_scale=2.0, max_scale=100.0)
    with torch.no_grad():
        temperature.log_scale.fill_(log_scale)
    assert float(temperature.scale().detach()) == pytest.approx(kept, rel=1e-5)
    temperature.limit()
    assert float(temperature.log_scale.detach()) == pytest.approx(math.log(kept), rel=1e-6)
    temperature.scale().sum().backward()
    assert float(temperature.log_scale.grad) > 0


def test_the_scale_is_saved_with_the_model():
    state = Temperature(0.02, learned=True).state_dict()
    restored = Temperature(0.05, learned=True)
    restored.load_state_dict(state)
    assert float(restored.scale().detach()) == pytest.approx(50.0, rel=1e-6)


def test_a_bias_starts_where_it_is_told_in_shape_1_and_is_trained():
    bias = Bias(-10.0)
    assert bias.value.tolist() == [-10.0] and bias.value.requires_grad
    assert [name for name, _ in bias.named_parameters()] == ["value"]


def test_a_learned_scale_moves_at_the_ends_of_its_range():
    for start in (0.01, 1.0):
        temperature = Temperature(start, learned=True)
        temperature.scale().sum().backward()
        assert float(temperature.log_scale.grad) == pytest.approx(1 / start, rel=1e-5)

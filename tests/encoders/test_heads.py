import pytest
import torch
from pydantic import ValidationError
from torch import nn

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.head_config import PRESETS, HeadConfig
from retrieval_cl.encoders.heads import build_predictor, build_projector

# From features of 512 numbers; each line as the source writes it. b: bias, BN: batch norm with weight and
# offset, BN-: without offset, BN0: with neither.
PUBLISHED = {
    "linear": "512x128b",
    "simclr_v1": "512x512 BN ReLU 512x128 BN-",
    "simclr_v2": "512x512 BN ReLU 512x512 BN ReLU 512x128 BN-",
    "dkobak": "512x1024b ReLU 1024x128b",
    "lightly_simclr": "512x512 BN ReLU 512x128 BN",
    "moco_v2": "512x512b ReLU 512x128b",
    "moco_v3": "512x4096 BN ReLU 4096x256 BN0",
    "moco_v3_vit": "512x4096 BN ReLU 4096x4096 BN ReLU 4096x256 BN0",
    "byol": "512x4096 BN ReLU 4096x256",
    "lightly_byol": "512x1024 BN ReLU 1024x256b",
    "solo_simclr": "512x2048b ReLU 2048x256b",
    "solo_byol": "512x4096 BN ReLU 4096x256b",
}
PUBLISHED_PREDICTORS = {
    "moco_v3_predictor": "256x4096 BN ReLU 4096x256",
    "moco_v3_vit_predictor": "256x4096 BN ReLU 4096x256 BN0",
    "byol": "256x4096 BN ReLU 4096x256",
    "lightly_byol": "256x1024 BN ReLU 1024x256b",
    "solo_byol": "256x4096 BN ReLU 4096x256b",
}


def spell(head):
    words = []
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            words.append(f"{layer.in_features}x{layer.out_features}{'b' if layer.bias is not None else ''}")
        elif isinstance(layer, nn.BatchNorm1d):
            learns = (layer.weight.requires_grad, layer.bias.requires_grad)
            words.append({(True, True): "BN", (True, False): "BN-", (False, False): "BN0"}[learns])
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()
        else:
            assert isinstance(layer, nn.ReLU)
            words.append("ReLU")
    return " ".join(words)


def test_every_preset_is_compared_with_its_source():
    assert PUBLISHED.keys() | PUBLISHED_PREDICTORS.keys() == PRESETS.keys()
    assert all(layout.source for layout in PRESETS.values())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_projector_is_as_published(preset):
    head = build_projector(HeadConfig(preset=preset), 512)
    assert spell(head) == PUBLISHED[preset]
    assert head.dim == PRESETS[preset].dim


@pytest.mark.parametrize("preset", PUBLISHED_PREDICTORS)
def test_a_predictor_is_as_published(preset):
    assert spell(build_predictor(HeadConfig(preset=preset), 256)) == PUBLISHED_PREDICTORS[preset]


def test_what_departs_from_a_preset_is_taken():
    config = HeadConfig(preset="byol", layers=3, hidden=6, dim=4, hidden_norm=False, last_norm="full")
    assert spell(build_projector(config, 5)) == "5x6b ReLU 6x6b ReLU 6x4 BN"
    assert spell(build_projector(HeadConfig(preset="lightly_byol", last_norm="none"), 5)) == (
        "5x1024 BN ReLU 1024x256b"
    )


def test_a_predictor_gives_as_many_numbers_as_its_projector():
    head = build_predictor(HeadConfig(preset="byol", hidden=8), 6)
    assert head.dim == 6
    assert head(torch.randn(4, 6)).shape == (4, 6)
    assert build_predictor(HeadConfig(preset="byol", hidden=8, dim=6), 6).dim == 6
    with pytest.raises(InputError, match=r"method\.predictor\.dim is 5, but the projector gives 6 numbers"):
        build_predictor(HeadConfig(preset="byol", dim=5), 6)


@pytest.mark.parametrize("settings", [{"hidden": 8}, {"hidden_norm": True}])
def test_a_setting_of_hidden_layers_is_refused_where_there_are_none(settings):
    with pytest.raises(ValidationError, match="has no effect on a head of one layer"):
        HeadConfig(preset="linear", **settings)
    HeadConfig(preset="linear", layers=2, **settings)


def test_a_head_equals_its_formula():
    torch.manual_seed(0)
    head = build_projector(HeadConfig(preset="simclr_v1", hidden=6, dim=4), 5).double()
    rows = torch.randn(7, 5, dtype=torch.float64)
    first, _, _, last, _ = head.layers

    def norm(values):
        return (values - values.mean(dim=0)) / (values.var(dim=0, unbiased=False) + 1e-5).sqrt()

    expected = norm(norm(rows @ first.weight.T).clamp(min=0) @ last.weight.T)
    assert (head(rows) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("preset", PRESETS)
def test_gradient_reaches_each_weight_that_learns(preset):
    torch.manual_seed(0)
    head = build_projector(HeadConfig(preset=preset, dim=3), 4)
    rows = torch.randn(6, 4, requires_grad=True)
    head(rows).pow(3).sum().backward()
    assert rows.grad.abs().sum() > 0
    for name, weight in head.named_parameters():
        assert (weight.grad is not None and bool(weight.grad.any())) == weight.requires_grad, name


def test_one_seed_gives_one_head():
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(build_projector(HeadConfig(preset="moco_v2"), 4).state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert not torch.equal(heads[0]["layers.0.weight"], heads[2]["layers.0.weight"])

import subprocess
import sys

import pytest
from pydantic import ValidationError

from retrieval_cl.encoders.head_config import HeadConfig
from retrieval_cl.encoders.image_config import ImageEncoderConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "some/model"}, "path = 'some/model' has no effect with kind 'convnet'"),
        ({"kind": "pretrained"}, "kind 'pretrained' needs path"),
        ({"kind": "pretrained", "path": ""}, "kind 'pretrained' needs path"),
        ({"kind": "pretrained", "path": "x", "width": 8}, "set kind to convnet or resnet"),
        (
            {"stem": "cifar"},
            "stem = 'cifar' has no effect with kind 'convnet'; remove it or set kind to resnet",
        ),
        ({"kind": "vit", "block": "bottleneck"}, "block = 'bottleneck' has no effect with kind 'vit'"),
        ({"kind": "resnet", "patch_size": 4}, "set kind to vit"),
        ({"kind": "resnet", "frozen_patches": True}, "set kind to vit"),
        ({"kind": "resnet", "pooling": "cls"}, "set kind to vit or pretrained"),
        ({"kind": "vit", "hidden_size": 100, "heads": 3}, "hidden_size 100 is no multiple of heads 3"),
        ({"kind": "vit", "size": 40}, "size 40 is no multiple of patch_size 16"),
        ({"kind": "vit", "patch_size": 5}, "size 224 is no multiple of patch_size 5"),
        ({"size": 6, "depths": (1, 1, 1, 1)}, "size 6 is too small for 4 stages"),
        ({"kind": "resnet", "width": 4}, "width 4 is too small for resnet; give at least 8"),
        ({"std": (0.5, 0.0, 0.5)}, "greater than 0"),
        ({"mean": (0.5, 0.5)}, "Field required"),
        ({"mean": (0.5, 1.5, 0.5)}, "less than or equal to 1"),
        ({"depths": ()}, "at least 1 item"),
        ({"depths": (0,)}, "greater than or equal to 1"),
        ({"kind": "cnn"}, "Input should be 'convnet', 'resnet', 'vit' or 'pretrained'"),
        ({"colour": 3}, "Extra inputs are not permitted"),
    ],
)
def test_an_image_setting_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ImageEncoderConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({}, 32),
        ({"size": 8}, 8),
        ({"kind": "resnet"}, 224),
        ({"kind": "resnet", "stem": "cifar"}, 32),
        ({"kind": "vit"}, 224),
        ({"kind": "pretrained", "path": "x"}, None),
        ({"kind": "pretrained", "path": "x", "size": 96}, 96),
    ],
)
def test_each_kind_has_its_size_of_images(settings, side):
    assert ImageEncoderConfig(**settings).side == side


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"depths": (1, 2), "mean": (0.1, 0.2, 0.3)},
        {"kind": "vit", "pooling": "cls", "frozen_patches": True},
        {"kind": "pretrained", "path": "x"},
    ],
)
def test_a_dumped_image_config_loads_again(settings):
    config = ImageEncoderConfig(**settings)
    assert ImageEncoderConfig(**config.model_dump()) == config
    assert ImageEncoderConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("config", [ImageEncoderConfig, HeadConfig])
def test_every_image_setting_is_described(config):
    assert all(field.description for field in config.model_fields.values())


def test_reading_image_settings_imports_no_model_library():
    code = (
        "import sys, retrieval_cl.encoders.image_config, retrieval_cl.encoders.head_config\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

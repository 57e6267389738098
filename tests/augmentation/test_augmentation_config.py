"""A preset with overrides; one without effect is an error."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.augmentation.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_no_override_leaves_the_preset(preset):
    assert AugmentationConfig(preset=preset).recipes() == PRESETS[preset]


def test_overrides_reach_both_views_and_pairs_one_each():
    config = AugmentationConfig(
        preset="byol", crop_scale=(0.2, 0.9), hue=0.0, blur=(0.5, 0.0), solarize=(0.1, 0.3), rotation=5.0
    )
    first, second = config.recipes()
    for recipe in (first, second):
        assert (recipe.crop_scale, recipe.hue, recipe.rotation) == ((0.2, 0.9), 0.0, 5.0)
        assert recipe.brightness == 0.4
    assert (first.blur, second.blur, first.solarize, second.solarize) == (0.5, 0.0, 0.1, 0.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "simclr_cifr"}, "did you mean 'simclr_cifar'"),
        ({"preset": "digits", "hue": 0.1}, "hue: 0.1 has no effect with jitter: 0"),
        ({"preset": "digits", "jitter": 0.5}, "jitter: 0.5 has no effect"),
        ({"preset": "simclr_cifar", "jitter": 0.0, "contrast": 0.2}, "contrast: 0.2 has no effect"),
        ({"preset": "simclr_cifar", "blur_sigma": (0.1, 1.0)}, "blur_sigma: .* has no effect with blur: 0"),
        ({"preset": "simclr_cifar", "blur_kernel": 0.2}, "blur_kernel: 0.2 has no effect with blur: 0"),
        ({"preset": "moco_v2", "solarize_threshold": 0.3}, "no effect with solarize: 0"),
        ({"preset": "moco_v2", "grey": 1.0, "hue": 0.1}, "no effect with grey: 1"),
        ({"crop_scale": (0.5, 0.2)}, "give the least, above 0, then the greatest"),
        ({"crop_scale": (0.5, 1.2)}, "at most 1"),
        ({"crop_ratio": (0.0, 1.2)}, "give the least, above 0"),
        ({"flip": 1.5}, "less than or equal to 1"),
        ({"mirror": 0.5}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ValidationError, match=message):
        AugmentationConfig(**given)


def test_what_an_override_switches_on_may_be_set():
    config = AugmentationConfig(preset="simclr_cifar", blur=(0.0, 0.5), blur_sigma=(0.1, 1.0))
    assert config.recipes()[1].blur_sigma == (0.1, 1.0)
    assert AugmentationConfig(preset="digits", jitter=0.5, brightness=0.3).recipes()[0].jitter == 0.5


def test_config_loads_without_torch():
    code = "import sys, retrieval_cl.augmentation.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The numbers of the published recipes, typed from their sources a second time."""

from dataclasses import asdict

import pytest

from retrieval_cl.augmentation.presets import PRESETS

# crop, flip, (b, c, s, h), jitter, grey, blur of the views, solarize of the views
PUBLISHED = {
    "moco_v1": ((0.2, 1), 0.5, (0.4, 0.4, 0.4, 0.4), 1.0, 0.2, (0, 0), (0, 0)),
    "moco_v2": ((0.2, 1), 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "simclr_imagenet": ((0.08, 1), 0.5, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "simclr_cifar": ((0.08, 1), 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0, 0), (0, 0)),
    "byol": ((0.08, 1), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (1.0, 0.1), (0, 0.2)),
    "moco_v3": ((0.2, 1), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (1.0, 0.1), (0, 0.2)),
    "dkobak_cifar": ((0.2, 1), 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.1, (0, 0), (0, 0)),
    "solo_cifar_simclr": ((0.08, 1), 0.5, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "solo_cifar_byol": ((0.08, 1), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (0, 0), (0, 0.2)),
    "solo_cifar_mocov2": ((0.08, 1), 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0.5, 0.5), (0, 0)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_the_published_numbers(name):
    scale, flip, strengths, jitter, grey, blurs, solarized = PUBLISHED[name]
    for recipe, blur, solarize in zip(PRESETS[name], blurs, solarized, strict=True):
        found = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
        assert (recipe.crop_scale, recipe.flip, found) == (scale, flip, strengths)
        assert (recipe.jitter, recipe.grey) == (jitter, grey)
        assert (recipe.blur, recipe.solarize) == (blur, solarize)
        assert recipe.blur_sigma == (0.1, 2.0) and recipe.solarize_threshold == 0.5
        assert recipe.crop_ratio == (3 / 4, 4 / 3) and not recipe.warps
        assert recipe.grey_first == (name == "moco_v1")


def test_digits_are_never_mirrored_nor_coloured():
    first, second = PRESETS["digits"]
    assert first == second and first.warps
    changed = asdict(first)
    assert not any(changed[key] for key in ("flip", "jitter", "grey", "blur", "solarize"))


def test_every_preset_is_ours_or_published():
    assert PRESETS.keys() == {*PUBLISHED, "digits"}

"""Random views: each image its own, equal to the operations one by one, and nothing is waited for."""

from contextlib import nullcontext
from dataclasses import replace

import per_image
import pytest
import torch

from retrieval_cl.augmentation import augment
from retrieval_cl.augmentation.augment import Augmentation, RandomView, TwoViews, build_views
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.augmentation.presets import PRESETS
from retrieval_cl.augmentation.recipe import Recipe

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
WHOLE = Recipe(crop_ratio=(1.0, 1.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def view_of(recipe, size=16):
    return RandomView(recipe, size=size, mean=MEAN, std=STD)


def plain(views):
    """Normalised views as colours of 0 .. 1, in double precision."""
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (MEAN, STD))
    return views.double() * std + mean


def test_recipe_that_changes_nothing_gives_every_byte_back():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    found = plain(view_of(WHOLE)(images, generator=generator())) * 255
    assert torch.equal(found.round().byte(), images)
    assert (found - images).abs().max() < 1e-5 * 255


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(
            crop_scale=(0.1, 1.0), flip=0.5, jitter=0.8, brightness=0.2, contrast=0.3, saturation=0.3, hue=0.1
        ),
        Recipe(
            crop_scale=(0.1, 1.0), jitter=0.8, brightness=0.2, saturation=0.3, hue=0.1, grey=0.5, blur=0.5
        ),
        Recipe(crop_scale=(0.3, 1.0), flip=0.5, blur=0.5, blur_kernel=1.0, solarize=0.5),
    ],
)
def test_views_equal_the_operations_one_by_one_where_nothing_is_clamped(recipe):
    # Colours of 0.3 to 0.6 leave 0 .. 1 under none of these jitters.
    images = (per_image.photographs(24, 20).float() * 0.3 + 76).byte()
    view = view_of(recipe, size=12)
    found = plain(view(images, generator=generator()))
    drawn = view.draw(24, source=(20, 20), generator=generator())
    crops, blurs = drawn.frames.crops, drawn.blurs
    for i, image in enumerate(images.double() / 255):
        box = [int(each[i]) for each in (crops.top, crops.left, crops.height, crops.width)]
        expected = per_image.crop(image, box, 12, flipped=bool(crops.flipped[i]))
        mean = expected.mean(dim=(1, 2), keepdim=True).flatten(1)
        expected = drawn.colours.pixel[i] @ expected.flatten(1) + drawn.colours.mean[i] @ mean
        assert expected.min() > 0 and expected.max() < 1
        expected = expected.view(3, 12, 12)
        if blurs.chosen[i]:
            expected = per_image.blur(expected, float(blurs.sigma[i]), blurs.radius)
        if drawn.solarized[i]:
            expected = per_image.solarize(expected, 0.5)
        distance = (found[i] - expected).abs()
        # A pixel on the threshold may fall on either side.
        assert (distance > 1e-5).double().mean() < (0.002 if drawn.solarized[i] else 1e-9)


def test_colours_stay_within_black_and_white():
    images = per_image.photographs(64, 16)
    recipe = Recipe(jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    found = plain(view_of(recipe)(images, generator=generator()))
    assert -1e-6 < found.min() < 1e-6 and 1 - 1e-6 < found.max() < 1 + 1e-6


def test_only_the_chosen_images_are_blurred_and_they_as_if_all_were():
    images = per_image.photographs(20, 16)
    view = view_of(Recipe(crop_scale=(0.3, 1.0), blur=0.5, blur_kernel=0.4))
    drawn = view.draw(20, source=(16, 16), generator=generator())
    chosen = drawn.blurs.chosen
    assert 5 < chosen.sum() < 15

    def with_blur(which):
        return view.apply(images, replace(drawn, blurs=replace(drawn.blurs, chosen=which)))

    some, every, none = (with_blur(x) for x in (chosen, torch.ones_like(chosen), torch.zeros_like(chosen)))
    assert torch.equal(some[~chosen], none[~chosen])
    assert torch.allclose(some[chosen], every[chosen], rtol=0, atol=1e-5)
    assert (some[chosen] - none[chosen]).abs().amax(dim=(1, 2, 3)).median() > 0.01


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_solarize_inverts_bright_pixels(threshold):
    images = per_image.photographs(4, 16)
    recipe = replace(WHOLE, solarize=1.0, solarize_threshold=threshold)
    found = (plain(view_of(recipe)(images, generator=generator())) * 255).round()
    expected = torch.where(images >= 255 * threshold, 255 - images.double(), images.double())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_states_give_equal_bits_and_the_next_call_others(preset):
    images = per_image.photographs(6, 20)
    views = build_views(AugmentationConfig(preset=preset), size=16, mean=MEAN, std=STD)
    state = generator()
    first, again, later = views(images, generator=state), views(images, generator=generator()), None
    later = views(images, generator=state)
    for a, b, c in zip(first, again, later, strict=True):
        assert a.shape == (6, 3, 16, 16) and a.dtype == torch.float32
        assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_image_of_a_batch_has_its_own_views(preset):
    images = per_image.photographs(1, 32).expand(12, 3, 32, 32)
    views = build_views(AugmentationConfig(preset=preset), size=32, mean=MEAN, std=STD)
    both = torch.cat(views(images, generator=generator())).flatten(1)
    assert len(both.unique(dim=0)) == 24


def test_rows_of_both_views_show_the_same_images():
    images = torch.arange(0, 240, 20, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 16, 16)
    config = AugmentationConfig(preset="byol", jitter=0.0, solarize=(0.0, 0.0))
    views = build_views(config, size=8, mean=MEAN, std=STD)(images, generator=generator())
    for view in views:
        found = (plain(view) * 255).round().long()
        assert torch.equal(found, images[:, :, :8, :8].long())


def test_second_view_of_byol_is_solarized_and_seldom_blurred():
    views = build_views(AugmentationConfig(preset="byol"), size=16, mean=MEAN, std=STD)
    first, second = (
        view.draw(4000, source=(16, 16), generator=generator()) for view in (views.first, views.second)
    )
    assert first.blurs.chosen.all() and abs(second.blurs.chosen.double().mean() - 0.1) < 0.02
    assert not first.solarized.any() and abs(second.solarized.double().mean() - 0.2) < 0.02


@pytest.mark.parametrize("preset", ["byol", "digits"])
def test_size_of_chunks_and_memory_layout_change_nothing(monkeypatch, preset):
    images = per_image.photographs(11, 20)
    views = build_views(AugmentationConfig(preset=preset), size=16, mean=MEAN, std=STD)
    expected = views(images, generator=generator())
    layout = images.to(memory_format=torch.channels_last)
    monkeypatch.setattr(augment, "CHUNK", 3 * 20 * 20 * 3)
    for found, one in zip(views(layout, generator=generator()), expected, strict=True):
        assert torch.allclose(found, one, rtol=0, atol=1e-5)
        assert found.is_contiguous()


def test_autocast_leaves_the_views_in_single_precision():
    images = per_image.photographs(4, 16)
    view = view_of(PRESETS["byol"][0])
    expected = view(images, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(images, generator=generator()), expected)


@pytest.mark.parametrize("recipe", dict.fromkeys(each for pair in PRESETS.values() for each in pair))
def test_views_wait_for_nothing(monkeypatch, recipe):
    # Meta tensors have no values; there is no autocast for them to switch off.
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    images = torch.empty(40, 3, 40, 24, dtype=torch.uint8, device="meta")
    found = RandomView(recipe, size=8, mean=MEAN, std=STD)(images, generator=generator())
    assert found.device.type == "meta" and found.shape == (40, 3, 8, 8)


def test_generator_of_another_device_is_refused():
    class Elsewhere(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(AssertionError, match="cuda"):
        view_of(WHOLE)(per_image.photographs(1, 16), generator=Elsewhere())


def test_views_are_augmentations():
    view = view_of(WHOLE)
    assert isinstance(view, Augmentation)
    a, b = TwoViews(view, view)(per_image.photographs(2, 16), generator=generator())
    assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_gives_the_views_of_the_processor_and_waits_for_nothing(preset):
    images = per_image.photographs(64, 40)
    views = build_views(AugmentationConfig(preset=preset), size=32, mean=MEAN, std=STD)
    expected = views(images, generator=generator())
    there = images.cuda()
    views(there, generator=generator())
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = views(there, generator=generator())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(found, expected, strict=True):
        # A pixel on the threshold of solarizing may fall on either side.
        assert ((a.cpu() - b).abs() > 1e-4).double().mean() < 1e-3

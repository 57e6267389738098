import copy
import math

import numpy as np
import pytest
import torch
from image_models import TINY, some_images, tiny_encoder
from PIL import Image
from torch.nn import functional

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.image_fit import fit_square
from retrieval_cl.encoders.load_image import build_image_encoder

DIMS = {"convnet": 8, "resnet": 16, "bottleneck": 64, "cifar": 16, "vit": 8, "vit_cls": 8}


@pytest.fixture(params=TINY)
def encoder(request):
    return tiny_encoder(request.param)


def pixels_for(encoder, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, encoder.size, encoder.size, generator=generator)


@pytest.mark.parametrize("kind", TINY)
def test_features_have_the_stated_width(kind):
    encoder = tiny_encoder(kind)
    assert encoder.dim == DIMS[kind]
    assert encoder.features(pixels_for(encoder)).shape == (4, DIMS[kind])


@pytest.mark.parametrize(
    ("settings", "dim", "count"),
    [
        # torchvision's resnet18 and resnet50 and timm's vit_small_patch16_224, each without its classifier.
        ({"kind": "resnet", "stem": "cifar"}, 512, 11_168_832),
        pytest.param({"kind": "resnet", "size": 32}, 512, 11_176_512, marks=pytest.mark.slow),
        pytest.param(
            {"kind": "resnet", "size": 32, "depths": (3, 4, 6, 3), "block": "bottleneck"},
            2048,
            23_508_032,
            marks=pytest.mark.slow,
        ),
        pytest.param({"kind": "vit"}, 384, 21_665_664, marks=pytest.mark.slow),
    ],
)
def test_standard_models_have_their_published_number_of_weights(settings, dim, count):
    encoder = build_image_encoder(ImageEncoderConfig(**settings), seed=0)
    assert encoder.dim == dim
    assert sum(weight.numel() for weight in encoder.parameters()) == count


def test_the_cifar_stem_keeps_the_side_and_three_stages_halve_it():
    encoder = tiny_encoder("cifar", size=32, depths=(1, 1, 1, 1))
    output = encoder.backbone(pixels_for(encoder))
    assert output.last_hidden_state.shape == (4, 64, 4, 4)
    stock = tiny_encoder("resnet", size=32, depths=(1, 1, 1, 1))
    assert stock.backbone(pixels_for(stock)).last_hidden_state.shape == (4, 64, 1, 1)


def test_the_cifar_resnet_equals_its_definition():
    encoder = tiny_encoder("cifar", depths=(2, 2)).double()
    weights = encoder.backbone.state_dict()

    def block(values, name, *, stride=1, padding=1):
        values = functional.conv2d(
            values, weights[f"{name}.convolution.weight"], stride=stride, padding=padding
        )
        norm = f"{name}.normalization"
        return functional.batch_norm(
            values,
            weights[f"{norm}.running_mean"],
            weights[f"{norm}.running_var"],
            weights[f"{norm}.weight"],
            weights[f"{norm}.bias"],
        )

    for name, value in weights.items():
        if "running" in name:
            value.add_(torch.rand_like(value) / 4)
    pixels = pixels_for(encoder).double()
    values = block(pixels, "embedder.embedder").relu()
    for stage, layer in ((0, 0), (0, 1), (1, 0), (1, 1)):
        name = f"encoder.stages.{stage}.layers.{layer}"
        first = stage == 1 and layer == 0
        inner = block(values, f"{name}.layer.0", stride=2 if first else 1).relu()
        inner = block(inner, f"{name}.layer.1")
        if first:
            values = block(values, f"{name}.shortcut", stride=2, padding=0)
        values = (values + inner).relu()
    expected = values.mean(dim=(2, 3))
    assert (encoder.features(pixels) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_the_convnet_halves_the_side_with_each_further_stage():
    encoder = build_image_encoder(ImageEncoderConfig(size=8), seed=0)
    assert encoder.dim == 128
    assert encoder.backbone(pixels_for(encoder)).last_hidden_state.shape == (4, 128, 2, 2)
    least = build_image_encoder(ImageEncoderConfig(size=4, width=4, depths=(1, 1, 1)), seed=0)
    assert least.features(pixels_for(least)).shape == (4, 16)


def test_tokens_are_pooled_as_the_settings_say():
    for kind, pool in (
        ("vit", lambda tokens: tokens[:, 1:].mean(dim=1)),
        ("vit_cls", lambda tokens: tokens[:, 0]),
    ):
        encoder = tiny_encoder(kind)
        pixels = pixels_for(encoder)
        tokens = encoder.backbone(pixels).last_hidden_state
        assert tokens.shape[1] == 1 + (encoder.size // TINY[kind]["patch_size"]) ** 2
        assert torch.equal(encoder.features(pixels), pool(tokens))


def test_gradient_reaches_every_weight_and_the_pixels(encoder):
    encoder.train()
    pixels = pixels_for(encoder).requires_grad_()
    encoder.features(pixels).pow(3).sum().backward()
    assert pixels.grad.abs().sum() > 0
    missing = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert missing == []


def test_frozen_patches_do_not_learn():
    encoder = tiny_encoder("vit", frozen_patches=True)
    frozen = {name for name, weight in encoder.named_parameters() if not weight.requires_grad}
    prefix = "backbone.embeddings.patch_embeddings.projection"
    assert frozen == {f"{prefix}.weight", f"{prefix}.bias"}
    encoder.features(pixels_for(encoder)).sum().backward()


@pytest.mark.parametrize("kind", TINY)
def test_one_seed_gives_one_encoder_and_leaves_torchs_generator_alone(kind):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (tiny_encoder(kind, seed=seed).fingerprint() for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


def per_image_reference(image, size):
    """Pillow's resize of the shorter side and the middle of it."""
    height, width, _ = image.shape
    if height < width:
        height, width = size, int(size * width / height)
    else:
        height, width = int(size * height / width), size
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(16, 16), (40, 40), (23, 37), (37, 23), (16, 21), (9, 9), (10, 33)])
def test_prepare_equals_pillow_image_by_image(shape):
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.5, 1.0)
    encoder = tiny_encoder("convnet", mean=mean, std=std)
    images = some_images(3, *shape)
    prepared = encoder.prepare(images.take(np.arange(3)))
    assert prepared.shape == (3, 3, 16, 16)
    for image, found in zip(images.pixels, prepared, strict=True):
        expected = (per_image_reference(image, 16) / 255 - np.array(mean)) / np.array(std)
        # Pillow rounds to whole levels after each direction.
        levels = np.abs(found.permute(1, 2, 0).numpy() - expected) * np.array(std) * 255
        assert levels.max() < (1.01 if min(shape) != 16 else 1e-3)


def test_images_of_the_right_size_are_not_touched():
    values = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    assert torch.equal(fit_square(values, 4), values.float())
    assert torch.equal(fit_square(values, 4)[:, :, 1:3, 1:3], fit_square(values[:, :, 1:3, 1:3], 2))


def test_encode_gives_the_unit_rows_of_prepared_features(encoder):
    images = some_images(7, 20, 18)
    rows = np.array([6, 0, 3])
    found = encoder.encode(images, rows=rows, batch_size=2)
    features = encoder.features(encoder.prepare(images.take(rows)))
    expected = functional.normalize(features, dim=-1).detach().numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert len(encoder.encode(images)) == 7
    assert encoder.encode(images, rows=np.array([], dtype=np.int64)).shape == (0, encoder.dim)


def test_encode_repeats_its_bits(encoder):
    images = some_images(9)
    first = encoder.encode(images, batch_size=4)
    assert np.array_equal(encoder.encode(images, batch_size=4), first)
    # Whole batches know nothing of each other.
    rows = np.array([4, 5, 6, 7, 0, 1, 2, 3])
    assert np.array_equal(encoder.encode(images, rows=rows, batch_size=4), first[rows])


def test_encode_evaluates_and_restores_each_modules_mode():
    encoder = tiny_encoder("resnet")
    expected = encoder.encode(some_images(4))
    encoder.train()
    frozen = encoder.backbone.embedder
    frozen.eval()
    before = encoder.fingerprint()
    assert np.array_equal(encoder.encode(some_images(4)), expected)
    assert encoder.fingerprint() == before
    assert encoder.training and encoder.backbone.encoder.training
    assert not frozen.training


def test_encode_reports_its_progress():
    calls = []
    tiny_encoder("convnet").encode(
        some_images(5), batch_size=2, progress=lambda done, whole: calls.append((done, whole))
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_bfloat16_is_near_and_leaves_the_weights_alone(encoder):
    images, before = some_images(6), encoder.fingerprint()
    exact = encoder.encode(images)
    short = encoder.encode(images, compute_dtype=torch.bfloat16)
    assert encoder.fingerprint() == before
    cosines = (exact * short).sum(axis=1)
    assert cosines.min() > 0.995
    assert not np.array_equal(exact, short)
    assert np.abs(np.linalg.norm(short, axis=1) - 1).max() < 1e-6


def test_a_vector_that_is_not_finite_is_refused_by_row():
    encoder = tiny_encoder("convnet")
    with torch.no_grad():
        encoder.backbone.stages[0][0][0].weight[0] = math.nan
    with pytest.raises(InputError, match=r"image row 5 is NaN or infinite \(2 of 2 rows are\)"):
        encoder.encode(some_images(6), rows=np.array([5, 2]))


@pytest.mark.parametrize("change", ["weight", "statistics", "mean", "size", "pooling"])
def test_the_fingerprint_sees_all_that_decides_a_vector(change):
    encoder = tiny_encoder("resnet", size=16)
    others = {
        "mean": tiny_encoder("resnet", size=16, mean=(0.5, 0.5, 0.4)),
        "size": tiny_encoder("resnet", size=17),
        "pooling": tiny_encoder("vit", pooling="cls"),
    }
    if change in others:
        same = tiny_encoder("vit") if change == "pooling" else encoder
        assert others[change].fingerprint() != same.fingerprint()
        return
    before = encoder.fingerprint()
    with torch.no_grad():
        if change == "weight":
            next(encoder.parameters())[0, 0, 0, 0] += 1e-3
        else:
            encoder.backbone.embedder.embedder.normalization.running_mean[0] += 1e-3
    assert encoder.fingerprint() != before


def test_a_copy_embeds_alike_and_learns_apart(encoder):
    pixels = pixels_for(encoder)
    twin = copy.deepcopy(encoder)
    assert torch.equal(twin.features(pixels), encoder.features(pixels))
    assert all(name.startswith("backbone.") for name in encoder.state_dict())
    before = encoder.fingerprint()
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert encoder.fingerprint() == before != twin.fingerprint()


def test_the_memory_layout_of_the_pixels_changes_no_bit(encoder):
    pixels = pixels_for(encoder)
    other = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(encoder.features(pixels), encoder.features(other))


def test_pixels_of_an_array_stay_channels_last():
    encoder = tiny_encoder("convnet")
    images = ArrayImages(some_images(3).pixels)
    prepared = encoder.prepare(images.take(np.arange(3)))
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert next(encoder.parameters()).is_contiguous(memory_format=torch.channels_last)

import numpy as np
import pytest
import torch
from image_models import some_images, tiny_encoder
from image_text_models import CAPTIONS, SAVERS, tiny_pair, tiny_whole
from safetensors.torch import load_file, save_file

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_json, write_json
from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.encoders.load_image_text import build_image_text_encoder, load_image_text_encoder

KINDS = ("pair", *SAVERS)


def trained(encoder):
    """Weights and statistics that no seed could give."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in encoder.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) / 10)
    return encoder


@pytest.fixture
def make(tmp_path):
    def encoder(kind):
        return trained(tiny_pair("cifar") if kind == "pair" else tiny_whole(SAVERS[kind](tmp_path / kind)))

    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_image_text_encoder_comes_back_bit_for_bit(make, tmp_path, kind):
    encoder = make(kind)
    encoder.keep_scale(0.03, bias=-7.25)
    encoder.save(tmp_path / "model")
    loaded = load_image_text_encoder(str(tmp_path / "model"))
    assert loaded.fingerprint() == encoder.fingerprint()
    assert (loaded.dim, loaded.size, loaded.mean, loaded.std) == (
        encoder.dim,
        encoder.size,
        encoder.mean,
        encoder.std,
    )
    assert (loaded.start_temperature, loaded.start_bias, loaded.locked) == (0.03, -7.25, None)
    images = some_images(3, 20, 14)
    assert np.array_equal(loaded.encode_images(images), encoder.encode_images(images))
    assert np.array_equal(loaded.encode_texts(CAPTIONS), encoder.encode_texts(CAPTIONS))
    assert not loaded.training
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "model").rglob("*"):
        if path.is_file():
            name, content = path.relative_to(tmp_path / "model"), path.read_bytes()
            assert (tmp_path / "again" / name).read_bytes() == content, name
            assert str(tmp_path).encode() not in content, name


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_weight_changes_the_fingerprint(make, kind):
    encoder = make(kind)
    seen = {encoder.fingerprint()}
    values = [
        value
        for name, value in encoder.state_dict().items()
        if value.is_floating_point() and "logit" not in name
    ]
    for count, value in enumerate(values, start=2):
        with torch.no_grad():
            value[(-1,) * value.dim()] += 1
        seen.add(encoder.fingerprint())
        assert len(seen) == count


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_decides_no_vector_and_no_fingerprint(make, kind):
    encoder = make(kind)
    before, vectors = encoder.fingerprint(), encoder.encode_texts(CAPTIONS)
    encoder.keep_scale(0.5, bias=None)
    assert encoder.fingerprint() == before
    assert np.array_equal(encoder.encode_texts(CAPTIONS), vectors)


def test_the_towers_of_a_pair_load_alone(make, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    encoder = trained(tiny_pair("resnet"))
    encoder.save(tmp_path / "model")
    assert load_image_encoder(tmp_path / "model" / "image").fingerprint() == encoder.image.fingerprint()
    assert load_encoder(tmp_path / "model" / "text").fingerprint() == encoder.text.fingerprint()
    weights = load_file(tmp_path / "model" / "projections.safetensors")
    texts = SentenceTransformer(str(tmp_path / "model" / "text"), device="cpu").encode_document(CAPTIONS)
    expected = texts @ weights["text.weight"].numpy().T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(encoder.encode_texts(CAPTIONS) - expected).max() < 1e-6
    pixels = torch.randn(2, 3, 32, 32)
    body = AutoModel.from_pretrained(tmp_path / "model" / "image").eval()
    expected = body(pixels).pooler_output.flatten(1) @ weights["image.weight"].T
    expected /= expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.embed_images(pixels), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_image_text_encoder_is_a_start(make, tmp_path, kind):
    encoder = make(kind)
    encoder.keep_scale(0.25, bias=None)
    encoder.save(tmp_path / "model")
    config = ImageTextEncoderConfig(kind="pretrained", path=str(tmp_path / "model"), locked="image")
    start = build_image_text_encoder(config, train_captions=[], seed=0)
    assert start.fingerprint() == encoder.fingerprint()
    assert (start.locked, start.start_temperature, start.start_bias) == ("image", 0.25, None)


@pytest.mark.parametrize("piece", ["manifest.json", "image", "text", "projections.safetensors"])
def test_half_a_pair_is_refused_in_one_line(tmp_path, piece):
    tiny_pair().save(tmp_path / "model")
    (tmp_path / "model" / piece).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"model.*(half written|no such folder; expected)") as caught:
        load_image_text_encoder(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("piece", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_half_a_whole_model_is_refused_in_one_line(make, tmp_path, piece):
    make("clip").save(tmp_path / "model")
    (tmp_path / "model" / piece).unlink()
    with pytest.raises(InputError, match=r"model'?:? .*(half written|cannot be loaded)") as caught:
        load_image_text_encoder(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "index"}, "this is a 'index', not a 'image_text_encoder'"),
        ({"encoder": "triple"}, "encoder 'triple'; known: pair, whole"),
        ({"dim": 7}, "dim is 7, but the model beside it gives 6 numbers"),
        ({"temperature": -1.0}, r"temperature is -1\.0; it is a number above 0 or null"),
        ({"bias": "low"}, "bias is 'low'; it is a number or null"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, change, message):
    tiny_pair().save(tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    write_json(manifest, read_json(manifest) | change)
    with pytest.raises(InputError, match=message):
        load_image_text_encoder(tmp_path / "model")


def test_projections_of_other_towers_are_refused(tmp_path):
    tiny_pair().save(tmp_path / "model")
    path = tmp_path / "model" / "projections.safetensors"
    weights = load_file(path)
    save_file(weights | {"text.weight": torch.zeros(6, 5)}, path)
    with pytest.raises(InputError, match=r"beside towers of 8 \(image\) and 12 \(text\) numbers it holds"):
        load_image_text_encoder(tmp_path / "model")
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"projections\.safetensors: cannot be read"):
        load_image_text_encoder(tmp_path / "model")


def test_what_is_no_image_text_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder; expected a folder with a image_text_encoder"):
        load_image_text_encoder(tmp_path / "absent")
    tiny_encoder("convnet").save(tmp_path / "image")
    with pytest.raises(InputError, match="this is a 'image_encoder', not a 'image_text_encoder'"):
        load_image_text_encoder(tmp_path / "image")


@pytest.mark.parametrize("kind", KINDS)
def test_a_save_that_fails_leaves_the_old_image_text_encoder(make, tmp_path, monkeypatch, kind):
    old = make(kind)
    old.save(tmp_path / "saved" / "model")

    def fill_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for module in ("image_text_pair", "image_text_whole"):
        monkeypatch.setattr(f"retrieval_cl.encoders.{module}.write_manifest", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        tiny_pair(seed=9).save(tmp_path / "saved" / "model")
    with pytest.raises(OSError, match="No space left"):
        old.save(tmp_path / "saved" / "model")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["model"]
    assert load_image_text_encoder(tmp_path / "saved" / "model").fingerprint() == old.fingerprint()

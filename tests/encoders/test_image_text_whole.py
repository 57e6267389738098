"""CLIP and SigLIP models of transformers, random and tiny, as others save them."""

import math

import numpy as np
import pytest
import torch
from image_models import some_images
from image_text_models import CAPTIONS, SAVERS, save_clip, save_siglip, tiny_whole
from PIL import Image
from torch.nn import functional

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_json, write_json

PADDING = {"clip": True, "siglip": "max_length"}


def load(folder):
    from transformers import AutoTokenizer, CLIPModel, SiglipModel

    model_class = {"clip": CLIPModel, "siglip": SiglipModel}[read_json(folder / "config.json")["model_type"]]
    return model_class.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", SAVERS)
def test_vectors_are_those_of_transformers(tmp_path, kind):
    encoder = tiny_whole(SAVERS[kind](tmp_path / "given"))
    model, tokenizer = load(tmp_path / "given")
    # As the model's own card has it; CLIP's mask of padding has no effect, SigLIP is given none.
    inputs = tokenizer(CAPTIONS, padding=PADDING[kind], truncation=True, return_tensors="pt")
    if kind == "siglip":
        del inputs["attention_mask"]
    pixels = torch.randn(3, 3, 12, 12)
    output = model(**inputs, pixel_values=pixels)
    torch.testing.assert_close(encoder.embed_texts(encoder.tokenize(CAPTIONS)), output.text_embeds)
    torch.testing.assert_close(encoder.embed_images(pixels), output.image_embeds)
    assert np.abs(encoder.encode_texts(CAPTIONS) - output.text_embeds.detach().numpy()).max() < 1e-5
    for number, text in enumerate(CAPTIONS):
        alone = encoder.embed_texts(encoder.tokenize([text]))
        torch.testing.assert_close(alone[0], output.text_embeds[number])


@pytest.mark.parametrize("kind", SAVERS)
def test_a_saved_model_gives_transformers_the_trained_logits(tmp_path, kind):
    encoder = tiny_whole(SAVERS[kind](tmp_path / "given")).train()
    pixels = torch.randn(3, 3, 12, 12)
    (encoder.embed_images(pixels) @ encoder.embed_texts(encoder.tokenize(CAPTIONS)).T).sum().backward()
    learning = [weight for weight in encoder.parameters() if weight.requires_grad]
    torch.optim.SGD(learning, lr=0.1).step()
    bias = -3.0 if kind == "siglip" else None
    encoder.keep_scale(0.02, bias=bias)
    encoder.save(tmp_path / "saved")
    model, tokenizer = load(tmp_path / "saved")
    assert not model.training
    ids = tokenizer(CAPTIONS, padding=PADDING[kind], truncation=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixels)
        encoder.eval()
        images, texts = encoder.embed_images(pixels), encoder.embed_texts(encoder.tokenize(CAPTIONS))
    found, own = (one.get_image_features(pixels).pooler_output for one in (model, encoder.model))
    assert torch.equal(found, own)
    torch.testing.assert_close(output.logits_per_image, images @ texts.T / 0.02 + (bias or 0))


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("shape", [(40, 29), (29, 40), (12, 12), (9, 7)])
def test_prepared_images_are_those_of_the_models_own_processor_before_and_after_saving(tmp_path, kind, shape):
    from transformers import AutoImageProcessor

    encoder = tiny_whole(SAVERS[kind](tmp_path / "given"))
    encoder.save(tmp_path / "saved")
    images = some_images(2, *shape)
    found = encoder.prepare(images.take(np.arange(2))).numpy()
    levels = np.array(encoder.std)[:, None, None] * 255
    for folder in ("given", "saved"):
        processor = AutoImageProcessor.from_pretrained(tmp_path / folder)
        expected = processor([Image.fromarray(image) for image in images.pixels], return_tensors="np")
        assert found.shape == expected["pixel_values"].shape
        apart = np.abs((found - expected["pixel_values"]) * levels)
        # Pillow's weights have 22 bits: what ends on a half is rounded another way now and then.
        assert apart.max() < 1.01 and (apart > 0.01).mean() < 0.01, folder


def test_a_model_brings_its_size_scale_and_bias(tmp_path):
    save_clip(tmp_path / "clip"), save_siglip(tmp_path / "siglip")
    clip, siglip = tiny_whole(tmp_path / "clip"), tiny_whole(tmp_path / "siglip")
    assert (clip.size, clip.dim, clip.mean, clip.std) == (12, 6, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    assert abs(clip.start_temperature - math.exp(-2.6592)) < 1e-6 and clip.start_bias is None
    assert (siglip.dim, siglip.start_temperature, siglip.start_bias) == (8, 1.0, 0.0)


@pytest.mark.parametrize("kind", SAVERS)
def test_every_weight_but_scale_and_bias_learns(tmp_path, kind):
    encoder = tiny_whole(SAVERS[kind](tmp_path / "given"))
    still = {name for name, weight in encoder.named_parameters() if not weight.requires_grad}
    assert still == {"model.logit_scale"} | ({"model.logit_bias"} if kind == "siglip" else set())
    pull = torch.randn(encoder.dim, generator=torch.Generator().manual_seed(0))
    images = encoder.embed_images(torch.randn(3, 3, 12, 12))
    ((images @ pull).sum() + (encoder.embed_texts(encoder.tokenize(CAPTIONS)) @ pull).sum()).backward()
    assert {name for name, weight in encoder.named_parameters() if weight.grad is None} == still


def test_texts_are_cut_to_the_positions_and_keep_their_end(tmp_path):
    encoder = tiny_whole(save_clip(tmp_path / "clip"))
    tokens = encoder.tokenize(["red " * 50, "", "red"])
    end = encoder.model.config.text_config.eos_token_id
    assert tokens.counts.tolist() == [16, 2, 3]
    assert [tokens[row][-1] for row in range(3)] == [end] * 3
    assert tokens.values.dtype == np.int32


def test_rows_of_siglip_have_one_length_padding_included(tmp_path):
    encoder = tiny_whole(save_siglip(tmp_path / "siglip"))
    tokens = encoder.tokenize(["a red square", "circle " * 20])
    assert tokens.counts.tolist() == [8, 8]
    assert tokens[0][3:].tolist() == [1] * 5
    from retrieval_cl.core.relations import Ragged

    short = Ragged.from_lists([tokens[0][:4].tolist()], dtype=np.int32)
    torch.testing.assert_close(encoder.embed_texts(short), encoder.embed_texts(tokens)[:1])


def test_old_configs_of_clip_pool_at_the_highest_token(tmp_path):
    old, new = tiny_whole(save_clip(tmp_path / "old", end=2)), tiny_whole(save_clip(tmp_path / "new"))
    assert np.array_equal(old.encode_texts(CAPTIONS), new.encode_texts(CAPTIONS))


def test_the_fingerprint_sees_tokenizer_transform_and_heads(tmp_path):
    seen = {tiny_whole(save_clip(tmp_path / "given")).fingerprint()}
    config = read_json(tmp_path / "given" / "config.json")
    processor = read_json(tmp_path / "given" / "preprocessor_config.json")
    tokenizer = read_json(tmp_path / "given" / "tokenizer.json")
    vision, model = config["vision_config"], tokenizer["model"]
    vocabulary = model["vocab"]
    assert (vocabulary["c"], vocabulary["d"]) == (2, 3)
    changes = [
        ("config.json", config | {"vision_config": vision | {"num_attention_heads": 4}}),
        ("preprocessor_config.json", processor | {"resample": 2}),
        ("preprocessor_config.json", processor | {"size": {"shortest_edge": 14}}),
        ("tokenizer.json", tokenizer | {"model": model | {"vocab": vocabulary | {"c": 3, "d": 2}}}),
    ]
    for count, (name, content) in enumerate(changes, start=2):
        folder = save_clip(tmp_path / str(count))
        write_json(folder / name, content)
        seen.add(tiny_whole(folder).fingerprint())
        assert len(seen) == count, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 1}, "asks for another transform"),
        ({"do_normalize": False}, "asks for another transform"),
        ({"do_center_crop": False}, "asks for another transform"),
        ({"size": {"height": 12, "width": 12}}, "asks for another transform"),
        ({"image_mean": [0.5]}, "asks for another transform"),
        ({"rescale_factor": 1.0}, "asks for another transform"),
        ({"crop_size": {"height": 12, "width": 10}}, "asks for another transform"),
        ({"size": {"shortest_edge": 10}}, "asks for another transform"),
        ({"crop_size": {"height": 8, "width": 8}}, "CLIPModel cannot embed images of 8 x 8"),
    ],
)
def test_a_processor_that_asks_for_more_than_we_do_is_refused(tmp_path, change, message):
    folder = save_clip(tmp_path / "clip")
    path = folder / "preprocessor_config.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(InputError, match=message) as caught:
        tiny_whole(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 55}, "the model knows 55 tokens, but its tokenizer 56"),
        ({"end": 7}, r"takes a text's vector at token 7, but its tokenizer gives \[54, 26, 55\] for 'a'"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, settings, message):
    folder = save_clip(tmp_path / "clip", **settings)
    with pytest.raises(InputError, match=message) as caught:
        tiny_whole(folder)
    assert str(folder) in str(caught.value)


def test_models_of_other_kinds_are_refused_by_name(tmp_path, bert_folder):
    with pytest.raises(
        InputError, match="a model of type 'bert'; an image-text encoder is of type clip or siglip"
    ):
        tiny_whole(bert_folder)
    with pytest.raises(InputError, match=r"encoder\.path '.*absent': no such folder"):
        tiny_whole(tmp_path / "absent")
    folder = save_clip(tmp_path / "clip")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="clip") as caught:
        tiny_whole(folder)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights of CLIPModel are missing, such as visual_projection"):
        tiny_whole(folder)


def test_mixed_precision_rows_stay_unit_rows(tmp_path):
    encoder = tiny_whole(save_clip(tmp_path / "clip"))
    found = encoder.encode_texts(CAPTIONS, compute_dtype=torch.bfloat16)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    cosines = functional.cosine_similarity(
        torch.from_numpy(found), torch.from_numpy(encoder.encode_texts(CAPTIONS))
    )
    assert cosines.min() > 0.99

"""Locked-image tuning (LiT): one tower stays what it is."""

import copy

import numpy as np
import pytest
import torch
from image_models import some_images, tiny_encoder
from image_text_models import CAPTIONS, SAVERS, tiny_pair, tiny_whole
from torch import nn


@pytest.fixture
def resnet_folder(tmp_path):
    tiny_encoder("cifar").save(tmp_path / "resnet")
    return {"kind": "pretrained", "path": str(tmp_path / "resnet")}


def embed_both(encoder):
    pixels = encoder.prepare(some_images(4).take(np.arange(4)))
    return encoder.embed_images(pixels), encoder.embed_texts(encoder.tokenize(CAPTIONS))


def state(module):
    return copy.deepcopy(module.state_dict())


def train_a_step(encoder):
    encoder.train()
    images, texts = embed_both(encoder)
    (images @ texts.T).square().sum().backward()
    learning = [weight for weight in encoder.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in learning)
    torch.optim.SGD(learning, lr=0.1).step()


def test_a_locked_image_tower_of_a_pair_stays_to_the_bit_and_all_else_learns(resnet_folder):
    encoder = tiny_pair(resnet_folder, locked="image")
    tower, before = state(encoder.image), state(encoder)
    train_a_step(encoder)
    assert all(torch.equal(value, tower[name]) for name, value in encoder.image.state_dict().items())
    assert not any(module.training for module in encoder.image.modules())
    assert encoder.text.training and encoder.projections["image"].training
    for name in ("projections.image.weight", "projections.text.weight"):
        assert not torch.equal(encoder.state_dict()[name], before[name])


def test_without_a_lock_the_statistics_of_batch_norm_move(resnet_folder):
    encoder = tiny_pair(resnet_folder)
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    train_a_step(encoder)
    assert norms and not any(
        torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True)
    )


def test_a_locked_text_tower_of_a_pair_has_no_dropout_and_no_graph(bert_folder):
    encoder = tiny_pair(text={"kind": "transformer", "path": str(bert_folder)}, locked="text").train()
    tokens = encoder.tokenize(CAPTIONS)
    assert torch.equal(encoder.embed_texts(tokens), encoder.embed_texts(tokens))
    assert encoder.embed_texts(tokens).requires_grad, "its projection learns"
    assert not any(weight.requires_grad for weight in encoder.text.parameters())
    assert not encoder.text.embed(tokens, kind="passage").requires_grad
    free = tiny_pair(text={"kind": "transformer", "path": str(bert_folder)}).train()
    assert not torch.equal(free.embed_texts(tokens), free.embed_texts(tokens))


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("locked", ["image", "text"])
def test_a_locked_tower_of_a_whole_model_stays_with_its_projection(tmp_path, kind, locked):
    encoder = tiny_whole(SAVERS[kind](tmp_path / "given"), locked=locked).train()
    images, texts = embed_both(encoder)
    assert (images.requires_grad, texts.requires_grad) == (locked == "text", locked == "image")
    before = state(encoder)
    train_a_step(encoder)
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    words = {"image": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}
    free = words["text" if locked == "image" else "image"]
    weights = {name for name, weight in encoder.named_parameters() if name.split(".")[1] in free}
    assert moved and moved <= weights
    assert {name.split(".")[1] for name in moved} == {name.split(".")[1] for name in weights}


def test_encoding_leaves_a_locked_tower_locked_and_the_other_in_training(resnet_folder):
    encoder = tiny_pair(resnet_folder, locked="image").train()
    encoder.encode_images(some_images(2))
    assert encoder.training and encoder.text.training and not encoder.image.training
    encoder.eval()
    assert not encoder.text.training

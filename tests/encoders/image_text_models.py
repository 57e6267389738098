"""Tiny image-text encoders, whole CLIP and SigLIP models with their tokenizers, and captions: no download."""

import json

import torch
from image_models import TINY

from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
from retrieval_cl.encoders.load_image_text import build_image_text_encoder

CAPTIONS = [
    "a red square above a blue circle",
    "a blue circle",
    "two green squares",
    "a red square above a blue circle and two green squares",
    "circle",
]
STATIC = {"kind": "static", "dim": 12, "vocab_size": 200, "min_count": 1, "init": "random"}


def tiny_pair(image="convnet", text=None, *, seed=0, **settings):
    config = ImageTextEncoderConfig(
        image=TINY[image] if isinstance(image, str) else image, text=text or STATIC, dim=6, **settings
    )
    return build_image_text_encoder(config, train_captions=CAPTIONS, seed=seed)


def tiny_whole(folder, **settings):
    config = ImageTextEncoderConfig(kind="pretrained", path=str(folder), **settings)
    return build_image_text_encoder(config, train_captions=[], seed=0)


def save_clip(folder, *, end=None, **text_settings):
    """A CLIP model as others save one: letters and two merged words as tokens, 16 positions, 12 pixels."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *[f"{letter}</w>" for letter in letters], "re", "red</w>"]
    vocabulary = {token: row for row, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")], model_max_length=16)
    tokenizer.save_pretrained(folder)
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1 if end is None else end,
        "initializer_range": 0.5,
        **text_settings,
    }
    config = CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=6)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    _save_processor(
        folder,
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": 12},
        do_center_crop=True,
        crop_size={"height": 12, "width": 12},
    )
    return folder


def save_siglip(folder):
    """A SigLIP model as others save one: words as tokens, rows of 8 tokens, 12 pixels."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {token: row for row, token in enumerate(["<unk>", "</s>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="</s>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    ).save_pretrained(folder)
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=text, vision_config=_vision())).save_pretrained(folder)
    _save_processor(folder, image_processor_type="SiglipImageProcessor", size={"height": 12, "width": 12})
    return folder


SAVERS = {"clip": save_clip, "siglip": save_siglip}


def _vision():
    return {
        "image_size": 12,
        "patch_size": 4,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    }


def _save_processor(folder, **settings):
    common = {
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(common | settings), encoding="utf8")

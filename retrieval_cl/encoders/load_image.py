"""From settings, or from a folder, to an image encoder; every failure to load becomes one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, read_json, read_manifest
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.load import load_somewhere

if TYPE_CHECKING:
    from torch import nn

    from retrieval_cl.encoders.image import ImageEncoder

_HALF = (0.5, 0.5, 0.5)


def build_image_encoder(config: ImageEncoderConfig, *, seed: int) -> ImageEncoder:
    """The encoder the settings describe, on the CPU, in float32 and evaluation mode.

    Args:
        config: see there.
        seed: of first weights; torch's own generator is left as it was.

    Raises:
        InputError: the model is missing, cannot be reached, or does not fit the settings.
    """
    from retrieval_cl.encoders.image import ImageEncoder

    if config.kind == "pretrained":
        return _build_pretrained(config)
    side = config.side
    assert side is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _MAKERS[config.kind](config)
    return ImageEncoder(
        backbone, size=side, mean=config.mean or _HALF, std=config.std or _HALF, pooling=config.pooling
    )


def load_image_encoder(folder: Path) -> ImageEncoder:
    """The encoder that `ImageEncoder.save` wrote, as it was, on the CPU in evaluation mode.

    Runs no code of the folder.

    Raises:
        InputError: there is none, it is half written, or it cannot be loaded.
    """
    from retrieval_cl.encoders.image import FOLDER_KIND, ImageEncoder
    from retrieval_cl.encoders.image_pretrained import to_channels

    facts = read_manifest(folder, FOLDER_KIND)
    try:
        mean, std = to_channels(facts["mean"]), to_channels(facts["std"])
        size, pooling = int(facts["size"]), facts["pooling"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / MANIFEST}: needs size, mean, std (3 numbers each) and pooling"
        ) from error
    return ImageEncoder(_load_backbone(folder), size=size, mean=mean, std=std, pooling=pooling)


def _make_convnet(config: ImageEncoderConfig) -> nn.Module:
    from retrieval_cl.encoders.image_convnet import ConvNetConfig, ConvNetModel

    depths, width = config.depths or (2, 2, 2), config.width or 32
    model: nn.Module = ConvNetModel(ConvNetConfig(depths=depths, widths=_doubled(width, stages=len(depths))))
    return model


def _make_resnet(config: ImageEncoderConfig) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    from retrieval_cl.encoders.image_cifar_resnet import CifarResNetConfig, CifarResNetModel

    classes = {"imagenet": (ResNetConfig, ResNetModel), "cifar": (CifarResNetConfig, CifarResNetModel)}
    config_class, model_class = classes[config.stem]
    depths, width = config.depths or (2, 2, 2, 2), config.width or 64
    first = width * (4 if config.block == "bottleneck" else 1)
    widths = _doubled(first, stages=len(depths))
    model: nn.Module = model_class(
        config_class(embedding_size=width, hidden_sizes=widths, depths=list(depths), layer_type=config.block)
    )
    return model


def _make_vit(config: ImageEncoderConfig) -> Any:
    from transformers import ViTConfig, ViTModel

    settings = ViTConfig(
        image_size=config.side,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden_size,
        layer_norm_eps=1e-6,
    )
    model: Any = ViTModel(settings, add_pooling_layer=False)
    if config.frozen_patches:
        model.embeddings.patch_embeddings.requires_grad_(False)
    return model


_MAKERS = {"convnet": _make_convnet, "resnet": _make_resnet, "vit": _make_vit}


def _doubled(first: int, *, stages: int) -> list[int]:
    return [first * 2**stage for stage in range(stages)]


def _build_pretrained(config: ImageEncoderConfig) -> ImageEncoder:
    from retrieval_cl.encoders.image import ImageEncoder
    from retrieval_cl.encoders.image_pretrained import freeze_unused, load_pretrained, read_processor

    path = str(config.path)
    folder = Path(path).expanduser()
    if (folder / MANIFEST).is_file():
        saved = load_image_encoder(folder)
        backbone, size, pooling = saved.backbone, saved.size, saved.pooling
        mean, std = saved.mean, saved.std
    else:
        backbone = load_pretrained(path)
        size, mean, std = read_processor(path, backbone, config=config)
        pooling = None
    encoder = ImageEncoder(
        backbone,
        size=config.size or size,
        mean=config.mean or mean,
        std=config.std or std,
        pooling=config.pooling or pooling,
    )
    freeze_unused(encoder)
    return encoder


def _load_backbone(folder: Path) -> nn.Module:
    from retrieval_cl.encoders.image_cifar_resnet import CifarResNetConfig, CifarResNetModel
    from retrieval_cl.encoders.image_convnet import ConvNetConfig, ConvNetModel
    from retrieval_cl.encoders.image_pretrained import load_pretrained, load_whole

    own: dict[str, Any] = {
        ConvNetConfig.model_type: ConvNetModel,
        CifarResNetConfig.model_type: CifarResNetModel,
    }
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in own:
        return load_pretrained(str(folder))

    def load(path: str, local_files_only: bool) -> Any:
        return load_whole(own[model_type], path, local_files_only=local_files_only)

    model: nn.Module = load_somewhere(load, str(folder), name="model", wanted="an image encoder's folder")
    return model

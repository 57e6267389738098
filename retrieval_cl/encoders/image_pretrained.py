"""Trained image models of transformers: from a folder, the local cache, or the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.load import load_somewhere

if TYPE_CHECKING:
    from torch import nn

    from retrieval_cl.encoders.image import Channels, ImageEncoder

_WANTED = "a transformers folder (it holds config.json)"


def load_pretrained(path: str) -> nn.Module:
    """The model of a folder or id, on the CPU in float32, without the pooler some have for the class token.

    Raises:
        InputError: it cannot be loaded, or takes no images.
    """
    model: Any = load_somewhere(_load_model, path, name="encoder.path", wanted=_WANTED)
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise InputError(
            f"encoder.path '{path}': {type(model).__name__} takes {model.main_input_name}, not images"
        )
    loaded: nn.Module = model.float()
    return loaded


def load_whole(model_class: Any, path: str, **options: Any) -> Any:
    """`model_class.from_pretrained(path, ...)`, where the files hold every weight.

    Raises:
        InputError: they do not; transformers alone would go on with random ones.
    """
    model, facts = model_class.from_pretrained(path, output_loading_info=True, **options)
    missing = sorted(facts["missing_keys"])
    if missing:
        raise InputError(
            f"'{path}' cannot be loaded: {len(missing)} weights of {type(model).__name__} are missing, "
            f"such as {missing[0]}"
        )
    return model


def read_processor(
    path: str, backbone: nn.Module, *, config: ImageEncoderConfig
) -> tuple[int, Channels, Channels]:
    """Size, mean and std that the model was trained with; those the settings give are not looked for.

    Raises:
        InputError: the model brings no image processor, and the settings do not say it all.
    """
    if config.size is not None and config.mean is not None and config.std is not None:
        return config.size, config.mean, config.std
    try:
        processor = load_somewhere(_load_processor, path, name="encoder.path", wanted=_WANTED)
    except InputError as error:
        raise InputError(
            f"encoder.path '{path}': no usable preprocessor_config.json beside the model; "
            "give encoder.size, .mean and .std"
        ) from error
    size = _side(getattr(processor, "crop_size", None)) or _side(getattr(processor, "size", None))
    size = size or _side(getattr(backbone.config, "image_size", None)) or 224
    return size, to_channels(processor.image_mean), to_channels(processor.image_std)


def to_channels(values: Any) -> Channels:
    """Three numbers, for red, green, blue, from what a file holds. Raises TypeError or ValueError."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def freeze_unused(encoder: ImageEncoder) -> None:
    """Takes weights that no feature depends on (mask tokens, poolers) out of training."""
    pixels = torch.zeros(1, 3, encoder.size, encoder.size)
    with torch.enable_grad():
        encoder.features(pixels).sum().backward()
    for weight in encoder.parameters():
        weight.requires_grad_(weight.requires_grad and weight.grad is not None)
        weight.grad = None


def _load_model(path: str, local_files_only: bool) -> Any:
    from transformers import AutoModel

    try:
        # Its weights are random where the model was trained for images alone, and nobody reads it here.
        return load_whole(AutoModel, path, local_files_only=local_files_only, add_pooling_layer=False)
    except TypeError:
        return load_whole(AutoModel, path, local_files_only=local_files_only)


def _load_processor(path: str, local_files_only: bool) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(path, local_files_only=local_files_only)


def _side(size: Any) -> int | None:
    """Side of a square from what processors and models store: a number, a pair, or a dictionary."""
    if isinstance(size, int):
        return size
    if isinstance(size, (list, tuple)):
        return int(min(size))
    sides = [side for key in ("shortest_edge", "height", "width") if (side := (size or {}).get(key))]
    return int(min(sides)) if sides else None

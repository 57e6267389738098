"""From settings, or from a folder, to an image-text encoder; every failure to load becomes one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, read_manifest
from retrieval_cl.encoders.image_text_config import (
    IMAGE_TEXT_FOLDER_KIND,
    ImageTextEncoderConfig,
    holds_whole_model,
)
from retrieval_cl.encoders.load import GivenTexts, build_encoder, load_encoder, load_somewhere
from retrieval_cl.encoders.load_image import build_image_encoder, load_image_encoder

if TYPE_CHECKING:
    from torch import nn

    from retrieval_cl.encoders.image_text import ImageTextEncoder
    from retrieval_cl.encoders.image_text_pair import TowerPair
    from retrieval_cl.encoders.image_text_whole import WholeClip

_WANTED = "the folder of a CLIP or SigLIP model (it holds config.json)"


def build_image_text_encoder(
    config: ImageTextEncoderConfig, *, train_captions: GivenTexts, seed: int
) -> ImageTextEncoder:
    """The encoder the settings describe, on the CPU, in float32 and evaluation mode.

    Args:
        config: see there.
        train_captions: captions of the training images, or what gives them: a static text tower learns its
            tokenizer and first vectors of them. Not asked for otherwise.
        seed: of first weights; torch's own generator is left as it was.

    Raises:
        InputError: a model is missing, cannot be reached, or does not fit the settings.
    """
    if config.kind == "pretrained":
        encoder = _load_start(str(config.path))
    else:
        encoder = _build_pair(config, train_captions=train_captions, seed=seed)
    if config.locked is not None:
        encoder.lock(config.locked)
    return encoder


def load_image_text_encoder(folder: Path | str) -> ImageTextEncoder:
    """The encoder that `save` wrote, as it was, on the CPU in evaluation mode; no tower is locked.

    A folder of a CLIP or SigLIP model that transformers saved will do as well. Runs no code of the folder.

    Raises:
        InputError: there is none, it is half written, or it cannot be loaded.
    """
    folder = Path(folder).expanduser()
    if not (folder / MANIFEST).is_file() and holds_whole_model(folder):
        return _load_whole(str(folder))
    facts = read_manifest(folder, IMAGE_TEXT_FOLDER_KIND)
    loaders = {"pair": _load_pair, "whole": _load_saved_whole}
    if facts.get("encoder") not in loaders:
        raise InputError(
            f"{folder / MANIFEST}: encoder {facts.get('encoder')!r}; known: {', '.join(loaders)}"
        )
    for name, above, valid in (("temperature", 0.0, "a number above 0"), ("bias", -math.inf, "a number")):
        value = facts.get(name)
        if value is not None and not (isinstance(value, int | float) and value > above):
            raise InputError(f"{folder / MANIFEST}: {name} is {value!r}; it is {valid} or null")
    encoder = loaders[facts["encoder"]](folder, facts)
    if facts.get("dim") != encoder.dim:
        raise InputError(
            f"{folder / MANIFEST}: dim is {facts.get('dim')!r}, but the model beside it gives "
            f"{encoder.dim} numbers"
        )
    return encoder


def _build_pair(config: ImageTextEncoderConfig, *, train_captions: GivenTexts, seed: int) -> TowerPair:
    from retrieval_cl.encoders.image_text_pair import TowerPair, make_projections

    with _keys_under("image"):
        image = build_image_encoder(config.image, seed=seed)
    with _keys_under("text"):
        text = build_encoder(config.text, corpus_texts=train_captions, seed=seed)
    return TowerPair(image, text, make_projections(image.dim, text.dim, dim=config.dim, seed=seed))


def _load_pair(folder: Path, facts: dict[str, Any]) -> TowerPair:
    from retrieval_cl.encoders.image_text_pair import IMAGE, PROJECTIONS, TEXT, TowerPair

    image = load_image_encoder(folder / IMAGE)
    if not (folder / TEXT).is_dir():
        raise InputError(f"{folder / TEXT}: no such folder; {folder} is half written")
    text = load_encoder(folder / TEXT)
    projections = _read_projections(folder / PROJECTIONS, image_dim=image.dim, text_dim=text.dim)
    return TowerPair(
        image, text, projections, start_temperature=facts.get("temperature"), start_bias=facts.get("bias")
    )


def _read_projections(path: Path, *, image_dim: int, text_dim: int) -> nn.ModuleDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from retrieval_cl.encoders.image_text_pair import IMAGE, TEXT, make_projections

    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder is half written")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).partition(chr(10))[0]}") from error
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    dim = shapes.get(f"{IMAGE}.weight", (0,))[0]
    wanted = {f"{IMAGE}.weight": (dim, image_dim), f"{TEXT}.weight": (dim, text_dim)}
    if shapes != wanted or dim == 0:
        raise InputError(
            f"{path}: holds {shapes}; beside towers of {image_dim} (image) and {text_dim} (text) numbers it "
            f"holds {IMAGE}.weight [dim, {image_dim}] and {TEXT}.weight [dim, {text_dim}]"
        )
    projections = make_projections(image_dim, text_dim, dim=dim, seed=0)
    projections.load_state_dict(weights)
    return projections


def _load_start(path: str) -> ImageTextEncoder:
    folder = Path(path).expanduser()
    return load_image_text_encoder(folder) if (folder / MANIFEST).is_file() else _load_whole(path)


def _load_saved_whole(folder: Path, facts: dict[str, Any]) -> WholeClip:
    encoder = _load_whole(str(folder))
    # With all their digits; and a CLIP model has no place for a bias.
    encoder.start_temperature, encoder.start_bias = facts.get("temperature"), facts.get("bias")
    return encoder


def _load_whole(path: str) -> WholeClip:
    from retrieval_cl.encoders.image_text_transform import read_transform
    from retrieval_cl.encoders.image_text_whole import FAMILIES, WholeClip

    def load(path: str, local_files_only: bool) -> tuple[Any, Any, dict[str, Any]]:
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

        from retrieval_cl.encoders.image_pretrained import load_whole

        options = {"local_files_only": local_files_only}
        kind = AutoConfig.from_pretrained(path, **options).model_type
        if kind not in FAMILIES:
            raise InputError(
                f"encoder.path '{path}': a model of type '{kind}'; an image-text encoder is of type "
                f"{' or '.join(FAMILIES)} (or set encoder.kind to pair)"
            )
        model = load_whole(FAMILIES[kind].model_class, path, **options)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        return model.float(), tokenizer, AutoImageProcessor.from_pretrained(path, **options).to_dict()

    model, tokenizer, processor = load_somewhere(load, path, name="encoder.path", wanted=_WANTED)
    try:
        return WholeClip(model, tokenizer=tokenizer, transform=read_transform(processor, path=path))
    except InputError as error:
        given = str(error)
        raise InputError(given if path in given else f"encoder.path '{path}': {given}") from error


@contextmanager
def _keys_under(tower: str) -> Iterator[None]:
    """Errors of a tower name the keys of its settings: `encoder.image.path` for `encoder.path`."""
    try:
        yield
    except InputError as error:
        # Not where it is part of a path.
        line = re.sub(r"(?<![\w/.'])encoder\.(?=[a-z])", f"encoder.{tower}.", str(error))
        raise InputError(line) from error

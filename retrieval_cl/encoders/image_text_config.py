"""Settings of the image-text encoder. Light: imported by the command line before any model library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from retrieval_cl.core.files import read_json
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.settings import Settings

# Of the manifest of a saved encoder.
IMAGE_TEXT_FOLDER_KIND = "image_text_encoder"
# Of models of transformers that are image-text encoders whole.
WHOLE_TYPES = ("clip", "siglip")
ImageTextEncoderKind = Literal["pair", "pretrained"]
TowerName = Literal["image", "text"]


class ImageTextEncoderConfig(Settings):
    """What embeds images and captions in one space. A setting without effect for the kind is an error."""

    kind: ImageTextEncoderKind = Field(
        "pair",
        description="pair: an image encoder and a text encoder with a linear projection each; pretrained: a "
        "CLIP or SigLIP model of transformers, or an image-text encoder saved by an earlier run",
    )
    path: str | None = Field(
        None, description="folder or Hugging Face id of the model to start from (kind pretrained)"
    )
    image: ImageEncoderConfig = Field(
        default_factory=ImageEncoderConfig, description="what embeds the images (kind pair)"
    )
    text: EncoderConfig = Field(
        default_factory=EncoderConfig, description="what embeds the captions (kind pair)"
    )
    dim: int = Field(256, ge=2, le=8192, description="numbers in a vector of the joint space (kind pair)")
    locked: TowerName | None = Field(
        None,
        description="this tower stays as it is: no gradient, evaluation mode; its projection of a pair "
        "learns (LiT, Zhai et al. 2022); null: both learn",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> ImageTextEncoderConfig:
        if self.kind == "pretrained" and not self.path:
            raise ValueError("kind 'pretrained' needs path: a folder or a Hugging Face id")
        for name, kind in _EFFECTIVE.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if self.kind != kind and getattr(self, name) != default:
                # Compared with the default, not with what was given: a dumped config must load again.
                raise ValueError(
                    f"{name} has no effect with kind '{self.kind}'; remove it or set kind to {kind}"
                )
        return self

    @model_validator(mode="after")
    def _check_text(self) -> ImageTextEncoderConfig:
        if self.text.towers != "shared":
            raise ValueError("text.towers = 'separate' has no effect: captions have one tower; remove it")
        if self.text.query_prompt is not None:
            raise ValueError(
                "text.query_prompt has no effect: captions are embedded as passages; set text.passage_prompt"
            )
        return self

    @model_validator(mode="after")
    def _check_locked(self) -> ImageTextEncoderConfig:
        if self.kind != "pair":
            return self
        if self.locked == "image" and self.image.kind != "pretrained":
            raise ValueError(
                f"locked = 'image' would keep the random weights of image.kind '{self.image.kind}'; "
                "set image.kind to pretrained"
            )
        if self.locked == "text" and self.text.kind == "static" and self.text.init == "random":
            raise ValueError(
                "locked = 'text' would keep the random vectors of text.init 'random'; set text.init to lsa, "
                "or text.kind to a pretrained one"
            )
        if self.locked == "text" and self.text.token_dropout > 0:
            raise ValueError("text.token_dropout has no effect on a locked tower; remove it or locked")
        return self


_EFFECTIVE: dict[str, ImageTextEncoderKind] = {
    "path": "pretrained",
    "image": "pair",
    "text": "pair",
    "dim": "pair",
}


def holds_whole_model(folder: Path) -> bool:
    """Whether a folder holds a CLIP or SigLIP model of transformers, as its config.json says."""
    described = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return isinstance(described, dict) and described.get("model_type") in WHOLE_TYPES

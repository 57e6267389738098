"""A CLIP or SigLIP model of transformers, whole: towers, projections, tokenizer and transform."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPModel, PreTrainedModel, SiglipModel

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder, write_json, write_manifest
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.unit_rows import unit_rows
from retrieval_cl.encoders.fingerprint import NO_MATTER, fingerprint_modules
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.image_text_config import IMAGE_TEXT_FOLDER_KIND, TowerName
from retrieval_cl.encoders.image_text_tokens import CaptionTokens, Padding
from retrieval_cl.encoders.image_text_transform import Transform
from retrieval_cl.encoders.quiet import no_progress_bars

_LARGE_BATCH, _CACHED_BATCH = 32_768, 1024
# The id of the end of a text in old configs of CLIP; such a model pools at the highest id instead.
_LEGACY_END = 2


@final
@dataclass(frozen=True)
class Family:
    """What models of a kind have in common.

    Attributes:
        model_class: of transformers.
        image: names of the modules that make an image's vector.
        text: names of the modules that make a text's vector.
        padding: of the token ids its text tower reads.
        ends: whether a text's vector is that of the token at its end.
        biased: whether the model has a bias of its cosines.
    """

    model_class: type[PreTrainedModel]
    image: tuple[str, ...]
    text: tuple[str, ...]
    padding: Padding
    ends: bool
    biased: bool


# By `model_type` of the config. SigLIP 2 models of one resolution are of type siglip.
FAMILIES: dict[str, Family] = {
    "clip": Family(
        CLIPModel,
        ("vision_model", "visual_projection"),
        ("text_model", "text_projection"),
        padding="do_not_pad",
        ends=True,
        biased=False,
    ),
    "siglip": Family(
        SiglipModel, ("vision_model",), ("text_model",), padding="max_length", ends=False, biased=True
    ),
}


@final
class WholeClip(ImageTextEncoder):
    """Wraps a model of transformers, which it saves as it is (Radford et al. 2021; Zhai et al. 2023).

    `CLIPModel.from_pretrained(folder)` or `SiglipModel.from_pretrained(folder)` gives equal vectors, and the
    logits that training ended with. The model's own scale and bias do not learn: a method has its own.

    Attributes:
        model: the model.
    """

    def __init__(self, model: PreTrainedModel, *, tokenizer: Any, transform: Transform) -> None:
        """Takes over `model`, puts it into evaluation mode, and tries it on an empty image and a text.

        Raises:
            InputError: it cannot embed images of this size, or the tokenizer is not its own.
        """
        super().__init__()
        self.model: Any = model
        self._family = FAMILIES[model.config.model_type]
        self._transform = transform
        self.size, self.mean, self.std = transform.size, transform.mean, transform.std
        self.fit = "stretch" if transform.edge is None else "crop"
        text_config: Any = self.model.config.text_config
        _check_tokenizer(tokenizer, text_config, ends=self._family.ends)
        self._tokens = CaptionTokens(
            tokenizer, limit=text_config.max_position_embeddings, padding=self._family.padding
        )
        for weight in model.parameters(recurse=False):
            weight.requires_grad_(False)
        self.start_temperature: float | None = math.exp(-float(self.model.logit_scale))
        self.start_bias: float | None = float(self.model.logit_bias) if self._family.biased else None
        self.locked = None
        self.eval()
        self.dim = self._try()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.logit_scale.device
        return device

    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """See the base class; padded to full length where the model reads its padding (SigLIP)."""
        return self._tokens.tokenize(texts)

    def embed_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """See the base class."""
        with self._gradient("image"):
            return unit_rows(self.model.get_image_features(pixel_values=pixels).pooler_output)

    def embed_texts(self, tokens: Ragged) -> Float[Tensor, "B D"]:
        """See the base class."""
        ids = self._tokens.collate(tokens, device=self.device)
        with self._gradient("text"):
            return unit_rows(self.model.get_text_features(input_ids=ids).pooler_output)

    def prepare(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """See the base class; as the model's image processor does it."""
        return self._transform(images)

    def batch_tokens(self) -> int:
        """See the base class."""
        return _CACHED_BATCH if self.device.type == "cpu" else _LARGE_BATCH

    @torch.no_grad()
    def keep_scale(self, temperature: float, *, bias: float | None) -> None:
        """See the base class; the model's own `logit_scale` and `logit_bias` become these."""
        self.start_temperature, self.start_bias = temperature, bias
        self.model.logit_scale.fill_(-math.log(temperature))
        if self._family.biased:
            self.model.logit_bias.fill_(bias or 0.0)

    def fingerprint(self) -> str:
        """See the base class; the scale and the bias of the cosines decide no vector."""
        config: dict[str, Any] = self.model.config.to_dict()
        facts = [type(self.model).__name__, self._tokens.describe(), repr(self._transform), _kept(config)]
        return fingerprint_modules(nn.ModuleDict(dict(self.model.named_children())), facts=facts)

    def save(self, folder: Path) -> None:
        """See the base class; `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` load it as well."""
        with new_folder(folder) as part:
            with no_progress_bars():
                self.model.save_pretrained(part)
            self._tokens.save(part)
            write_json(part / "preprocessor_config.json", self._transform.settings())
            (part / "README.md").write_text(_card(self), encoding="utf8")
            write_manifest(
                part,
                IMAGE_TEXT_FOLDER_KIND,
                encoder="whole",
                dim=self.dim,
                temperature=self.start_temperature,
                bias=self.start_bias,
            )

    def _parts_of(self, tower: TowerName) -> tuple[nn.Module, ...]:
        names = {"image": self._family.image, "text": self._family.text}[tower]
        return tuple(self.model.get_submodule(name) for name in names)

    def _try(self) -> int:
        """Numbers in a vector."""
        name = type(self.model).__name__
        empty = torch.zeros(1, 3, self.size, self.size, device=self.device)
        try:
            with torch.no_grad():
                image, text = self.embed_images(empty), self.embed_texts(self.tokenize(["a"]))
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{name} cannot embed images of {self.size} x {self.size} and texts: {reason}"
            ) from error
        if image.shape != text.shape:
            raise InputError(
                f"{name} gives {image.shape[1]} numbers for an image and {text.shape[1]} for a text: they "
                "cannot be compared"
            )
        return image.shape[1]


def _check_tokenizer(tokenizer: Any, text_config: Any, *, ends: bool) -> None:
    if tokenizer.pad_token_id is None:
        raise InputError("the model's tokenizer has no padding token; set pad_token in tokenizer_config.json")
    if len(tokenizer) > text_config.vocab_size:
        raise InputError(
            f"the model knows {text_config.vocab_size} tokens, but its tokenizer {len(tokenizer)}: it "
            "belongs to another model"
        )
    if not ends:
        return
    ids, end, pad = tokenizer("a")["input_ids"], text_config.eos_token_id, tokenizer.pad_token_id
    # Else every text would have the vector of its first token, or of its padding.
    found = max(ids) == ids[-1] >= pad if end == _LEGACY_END else end in ids
    if not found or tokenizer.padding_side != "right":
        raise InputError(
            f"the model takes a text's vector at token {end}, but its tokenizer gives {ids} for 'a' and pads "
            f"with {pad} on the {tokenizer.padding_side}: it belongs to another model"
        )


def _kept(config: dict[str, Any]) -> str:
    """The config without what decides no vector, at any depth."""

    def keep(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: keep(inner) for key, inner in value.items() if key not in NO_MATTER}

    return json.dumps(keep(config), sort_keys=True, default=str)


def _card(encoder: WholeClip) -> str:
    name = type(encoder.model).__name__
    return (
        "---\nlibrary_name: transformers\npipeline_tag: zero-shot-image-classification\n"
        "tags:\n- retrieval-cl\n---\n\n"
        f"# Image-text encoder\n\nVectors of {encoder.dim} numbers of images of {encoder.size} x "
        f"{encoder.size} pixels and of texts, made by retrieval-cl. Load it with "
        f"`{name}.from_pretrained(folder)`, `AutoTokenizer` and `AutoImageProcessor`.\n"
    )

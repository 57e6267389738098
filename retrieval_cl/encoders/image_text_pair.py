"""An image encoder and a text encoder, each with a linear projection into one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from retrieval_cl.core.files import new_folder, write_manifest
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.unit_rows import unit_rows
from retrieval_cl.encoders.fingerprint import fingerprint_modules
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.image_text_config import IMAGE_TEXT_FOLDER_KIND, TowerName
from retrieval_cl.encoders.text import TextEncoder

IMAGE, TEXT, PROJECTIONS = "image", "text", "projections.safetensors"


@final
class TowerPair(ImageTextEncoder):
    """Two encoders and their projections: linear, without bias, then scaled to length 1 (CLIP, section 2.3).

    What a projection is given may have any length: the unit row behind it is the same. A row of zeros (a
    text of which a static encoder knows no word) stays one.

    Attributes:
        image: gives the features of images.
        text: gives the vectors of texts, which it embeds as passages.
        projections: "image" and "text": from their vectors to the joint space.
    """

    def __init__(
        self,
        image: ImageEncoder,
        text: TextEncoder,
        projections: nn.ModuleDict,
        *,
        start_temperature: float | None = None,
        start_bias: float | None = None,
    ) -> None:
        """Takes over the encoders; `projections` as `make_projections` gives them.

        `start_temperature`, `start_bias`: what an earlier training learned, see the base class.
        """
        super().__init__()
        self.image, self.text, self.projections = image, text, projections
        self.dim = len(projections.get_parameter(f"{IMAGE}.weight"))
        self.size, self.mean, self.std = image.size, image.mean, image.std
        self.start_temperature, self.start_bias = start_temperature, start_bias
        self.locked = None
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image.device

    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """See the base class; the passage prompt is put before each text."""
        return self.text.tokenize(texts, kind="passage")

    def embed_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """See the base class."""
        with self._gradient("image"):
            features = self.image.features(pixels)
        return unit_rows(self.projections[IMAGE](features))

    def embed_texts(self, tokens: Ragged) -> Float[Tensor, "B D"]:
        """See the base class."""
        with self._gradient("text"):
            vectors = self.text.embed(tokens, kind="passage")
        return unit_rows(self.projections[TEXT](vectors))

    def prepare(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """See the base class."""
        return self.image.prepare(images)

    def batch_tokens(self) -> int:
        """See the base class."""
        return self.text.batch_tokens(kind="passage")

    def keep_scale(self, temperature: float, *, bias: float | None) -> None:
        """See the base class; stands in the manifest."""
        self.start_temperature, self.start_bias = temperature, bias

    def fingerprint(self) -> str:
        """See the base class."""
        return fingerprint_modules(
            self.projections, facts=[self.image.fingerprint(), self.text.fingerprint()]
        )

    def save(self, folder: Path) -> None:
        """See the base class: `image/` for `AutoModel`, `text/` for `SentenceTransformer`, projections."""
        with new_folder(folder) as part:
            self.image.save(part / IMAGE)
            self.text.save(part / TEXT)
            weights = {name: weight.contiguous() for name, weight in self.projections.state_dict().items()}
            save_file(weights, part / PROJECTIONS)
            (part / "README.md").write_text(_card(self), encoding="utf8")
            write_manifest(
                part,
                IMAGE_TEXT_FOLDER_KIND,
                encoder="pair",
                dim=self.dim,
                temperature=self.start_temperature,
                bias=self.start_bias,
            )

    def _parts_of(self, tower: TowerName) -> tuple[nn.Module, ...]:
        return ({"image": self.image, "text": self.text}[tower],)


def make_projections(image_dim: int, text_dim: int, *, dim: int, seed: int) -> nn.ModuleDict:
    """Projections from both encoders' vectors to `dim` numbers.

    Weights are normal with a deviation of 1 / sqrt(numbers in), as CLIP's are (transformers, CLIPModel).
    """
    # Not the seed alone: a static encoder draws its token vectors from that.
    generator = np.random.default_rng((seed, 1))
    projections = nn.ModuleDict()
    for name, width in ((IMAGE, image_dim), (TEXT, text_dim)):
        # Made without torch's generator, which stays as it was.
        projection = nn.utils.skip_init(nn.Linear, width, dim, bias=False)
        drawn = generator.standard_normal((dim, width), dtype=np.float32) * width**-0.5
        with torch.no_grad():
            projection.weight.copy_(torch.from_numpy(drawn))
        projections[name] = projection
    return projections


def _card(encoder: TowerPair) -> str:
    return (
        "---\ntags:\n- image-text\n- retrieval-cl\n---\n\n"
        f"# Image-text encoder\n\nUnit vectors of {encoder.dim} numbers of images and of texts, made by "
        f"retrieval-cl. `{IMAGE}/` is a transformers model (`AutoModel.from_pretrained`), `{TEXT}/` a "
        f"sentence-transformers model (`SentenceTransformer`, `encode_document`). A vector of the joint "
        f"space is theirs times the matrix `{IMAGE}.weight` or `{TEXT}.weight` of `{PROJECTIONS}`, "
        "transposed, scaled to length 1.\n"
    )

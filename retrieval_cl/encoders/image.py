"""The image encoder: a transformers backbone with one pooled vector an image, fed with pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder, write_json, write_manifest
from retrieval_cl.core.images import Images
from retrieval_cl.encoders.encoding import (
    Progress,
    collect,
    computing_in,
    embed_image_batches,
    evaluating,
    refuse_not_finite,
)
from retrieval_cl.encoders.fingerprint import fingerprint_modules
from retrieval_cl.encoders.image_config import IMAGE_FOLDER_KIND, TokenPooling
from retrieval_cl.encoders.image_fit import fit_square, processor_settings
from retrieval_cl.encoders.image_pooling import Pool, choose_pool
from retrieval_cl.encoders.quiet import no_progress_bars

Channels = tuple[float, float, float]

FOLDER_KIND = IMAGE_FOLDER_KIND
# Written anew by each save, or left over from a load; none of them decides a vector.
_NO_MATTER = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "auto_map")


@final
class ImageEncoder(nn.Module):
    """Embeds images. Wraps a transformers model of images, which it saves as it is.

    `AutoModel.from_pretrained(folder)` gives the same features from the same pixels.

    Attributes:
        backbone: the model.
        dim: numbers in a feature vector.
        size: side of the square images it takes, in pixels.
        mean: taken off red, green, blue of pixels in 0..1.
        std: red, green, blue are divided by it after that.
        pooling: from token vectors to one vector; None: the backbone gives maps and pools them itself.
    """

    _factor: Float[Tensor, "3 1 1"]
    _shift: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        size: int,
        mean: Channels,
        std: Channels,
        pooling: TokenPooling | None = None,
    ) -> None:
        """Takes over `backbone`, puts it into evaluation mode, and tries it on an empty image.

        `pooling`: None stands for "mean" where the backbone gives tokens.

        Raises:
            InputError: the backbone cannot embed images of this size, or cannot pool so.
        """
        super().__init__()
        # Convolutions take a quarter less time so, on the CPU as on a GPU.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.size, self.mean, self.std = size, mean, std
        std_row, mean_row = torch.tensor(std), torch.tensor(mean)
        self.register_buffer("_factor", (1 / (255 * std_row)).reshape(3, 1, 1), persistent=False)
        self.register_buffer("_shift", (-mean_row / std_row).reshape(3, 1, 1), persistent=False)
        self.eval()
        output = self._try()
        self._pool: Pool
        self._pool, self.pooling = choose_pool(backbone, output, size=size, pooling=pooling)
        self.dim = int(self._pool(output).shape[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.backbone.parameters()).device
        return device

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Pooled vectors of normalised pixels, not of unit length, with gradient, in the module's mode."""
        output = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        pooled: Tensor = self._pool(output)
        return pooled

    def prepare(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """Evaluation's transform: shorter side resized, middle cut out, normalised; where the images lie."""
        device = images.device
        return fit_square(images, self.size) * self._factor.to(device) + self._shift.to(device)

    def encode(
        self,
        images: Images,
        *,
        rows: Int64[np.ndarray, " N"] | None = None,
        batch_size: int = 256,
        compute_dtype: torch.dtype | None = None,
        progress: Progress | None = None,
    ) -> Float32[np.ndarray, "N F"]:
        """Unit rows of images, in the given order; in evaluation mode, no gradient.

        The same rows in the same order with the same batch size give the same bits.

        Args:
            images: of any one size.
            rows: which images; None: all.
            batch_size: images embedded together.
            compute_dtype: type to compute in (bfloat16), by autocast; None: that of the weights.
            progress: called with images done and images in all after each batch.

        Raises:
            InputError: a vector is NaN or infinite; names the first such image.
        """
        assert batch_size >= 1, batch_size
        rows = np.arange(len(images)) if rows is None else rows

        def embed(taken: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
            return functional.normalize(self.features(self.prepare(taken)).float(), dim=-1)

        with evaluating(self), torch.inference_mode(), computing_in(compute_dtype, device=self.device):
            batches = embed_image_batches(
                images, rows=rows, batch_size=batch_size, device=self.device, embed=embed
            )
            vectors = collect(batches, num_rows=len(rows), dim=self.dim, progress=progress)
        refuse_not_finite(vectors, what="image", numbers=rows)
        return vectors

    def fingerprint(self) -> str:
        """SHA-256, in hex, over all that decides a vector: weights, architecture, size, mean, std, pooling.

        Equal before and after saving and loading; any one changed weight changes it.
        """
        config: dict[str, Any] = self.backbone.config.to_dict()
        kept = {key: value for key, value in config.items() if key not in _NO_MATTER}
        facts = {"size": self.size, "mean": self.mean, "std": self.std, "pooling": self.pooling}
        described = json.dumps([facts, kept], sort_keys=True, default=str)
        return fingerprint_modules(self.backbone, facts=[type(self.backbone).__name__, described])

    def save(self, folder: Path) -> None:
        """Writes a folder that `AutoModel.from_pretrained(folder)` loads, whole or not at all.

        A model that transformers does not know brings its file along and needs `trust_remote_code=True`.
        """
        with new_folder(folder) as part:
            with no_progress_bars():
                self.backbone.save_pretrained(part)
            settings = processor_settings(self.size, mean=self.mean, std=self.std)
            write_json(part / "preprocessor_config.json", settings)
            (part / "README.md").write_text(_model_card(self), encoding="utf8")
            facts = {"size": self.size, "mean": self.mean, "std": self.std, "pooling": self.pooling}
            write_manifest(part, FOLDER_KIND, **facts, dim=self.dim)

    def _try(self) -> Any:
        empty = torch.zeros(1, 3, self.size, self.size, device=self.device)
        try:
            with torch.no_grad():
                return self.backbone(empty.contiguous(memory_format=torch.channels_last))
        except (ValueError, RuntimeError, TypeError) as error:
            name, reason = type(self.backbone).__name__, str(error).strip().partition("\n")[0]
            raise InputError(f"{name} cannot embed images of {self.size} x {self.size}: {reason}") from error


def _model_card(encoder: ImageEncoder) -> str:
    remote = getattr(encoder.backbone.config, "auto_map", None) is not None
    arguments = ", trust_remote_code=True" if remote else ""
    wanted = "pooler_output" if encoder.pooling is None else f"last_hidden_state ({encoder.pooling})"
    return (
        "---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n"
        "tags:\n- image-feature-extraction\n- retrieval-cl\n---\n\n"
        f"# Image encoder\n\nVectors of {encoder.dim} numbers of images of {encoder.size} x {encoder.size} "
        f"pixels, made by retrieval-cl. Load it with `AutoModel.from_pretrained(folder{arguments})`, and its "
        f"pixels with `AutoImageProcessor.from_pretrained(folder)`; the features are `{wanted}`.\n"
    )

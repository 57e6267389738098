"""What embeds images and captions in one space: the two towers as the rest of the house sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from retrieval_cl.core.images import Images
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.ahead import token_windows
from retrieval_cl.encoders.encoding import (
    Progress,
    collect,
    computing_in,
    embed_image_batches,
    embed_text_batches,
    evaluating,
    refuse_not_finite,
)
from retrieval_cl.encoders.image import Channels
from retrieval_cl.encoders.image_text_config import TowerName


class ImageTextEncoder(nn.Module, ABC):
    """Embeds images and texts into unit rows whose cosines compare the ones with the others.

    Attributes:
        dim: numbers in a vector.
        size: side of the square images it takes, in pixels.
        mean: taken off red, green, blue of pixels in 0..1.
        std: red, green, blue are divided by it after that.
        start_temperature: what the scale of the cosines was learned to be, as 1 / scale; None: nothing was.
        start_bias: what was learned to be added to each scaled cosine (sigmoid objective); None: nothing was.
        locked: the tower that does not learn.
        fit: how it brings an image that is no square to one: its middle, or the whole, stretched.
    """

    dim: int
    size: int
    mean: Channels
    std: Channels
    start_temperature: float | None
    start_bias: float | None
    locked: TowerName | None
    fit: Literal["crop", "stretch"] = "crop"

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """Token ids (int32) of each text: special tokens included, cut to the maximum length."""

    @abstractmethod
    def embed_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit rows of normalised pixels, with gradient, on the module's device, in its mode."""

    @abstractmethod
    def embed_texts(self, tokens: Ragged) -> Float[Tensor, "B D"]:
        """Unit rows of token ids, with gradient, on the module's device; zeros where nothing is known."""

    @abstractmethod
    def prepare(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """Evaluation's transform: brought to the square it takes, normalised; where the images lie."""

    @abstractmethod
    def batch_tokens(self) -> int:
        """Tokens to embed together, padding included, for the most tokens a second on the device."""

    @abstractmethod
    def keep_scale(self, temperature: float, *, bias: float | None) -> None:
        """Notes what training learned, for `save`; no vector changes.

        Args:
            temperature: 1 / scale of the cosines.
            bias: what is added to each scaled cosine; None: nothing.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, over all that decides a vector, weights, tokenizer and transform included.

        Equal before and after saving and loading; any one changed weight changes it.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes a folder that `load_image_text_encoder` loads, whole or not at all."""

    @abstractmethod
    def _parts_of(self, tower: TowerName) -> tuple[nn.Module, ...]:
        """The modules that stay where this tower is locked."""

    def lock(self, tower: TowerName) -> None:
        """Takes a tower out of training for good: weights, BatchNorm statistics and dropout alike."""
        assert self.locked in (None, tower), self.locked
        self.locked = tower
        for part in self._parts_of(tower):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all parts but those of a locked tower, which stay in evaluation mode."""
        super().train(mode)
        if self.locked is not None:
            for part in self._parts_of(self.locked):
                part.eval()
        return self

    def encode_images(
        self,
        images: Images,
        *,
        rows: Int64[np.ndarray, " N"] | None = None,
        batch_size: int = 256,
        compute_dtype: torch.dtype | None = None,
        progress: Progress | None = None,
    ) -> Float32[np.ndarray, "N D"]:
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

        def embed(taken: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
            return self.embed_images(self.prepare(taken))

        with evaluating(self), torch.inference_mode(), computing_in(compute_dtype, device=self.device):
            batches = embed_image_batches(
                images, rows=rows, batch_size=batch_size, device=self.device, embed=embed
            )
            vectors = collect(batches, num_rows=len(rows), dim=self.dim, progress=progress)
        refuse_not_finite(vectors, what="image", numbers=rows)
        return vectors

    def encode_texts(
        self,
        texts: Sequence[str] | Ragged,
        *,
        batch_tokens: int | None = None,
        compute_dtype: torch.dtype | None = None,
        progress: Progress | None = None,
    ) -> Float32[np.ndarray, "N D"]:
        """Unit rows of texts, or of what `tokenize` gave, in the given order; no gradient, no dropout.

        Args:
            texts: texts or token ids.
            batch_tokens: tokens embedded together, padding included; None: what is fast on the device.
            compute_dtype: type to compute in (bfloat16), by autocast; None: that of the weights.
            progress: called with rows done and rows in all after each batch.

        Raises:
            InputError: a vector is NaN or infinite; names the first such row.
        """
        assert not isinstance(texts, str), "one text is a list of one text"
        windows = token_windows(texts, tokenize=self.tokenize)
        budget = batch_tokens or self.batch_tokens()
        with evaluating(self), torch.inference_mode(), computing_in(compute_dtype, device=self.device):
            batches = embed_text_batches(windows, embed=self.embed_texts, batch_tokens=budget)
            vectors = collect(batches, num_rows=len(texts), dim=self.dim, progress=progress)
        refuse_not_finite(vectors, what="text", numbers=None)
        return vectors

    def _gradient(self, tower: TowerName) -> AbstractContextManager[object]:
        """Gradients inside as outside, but none where the tower is locked."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.locked != tower)

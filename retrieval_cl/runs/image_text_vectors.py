"""Vectors of images and captions under the weights of the moment; evaluation and mining share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.training.device import resolve_precision
from retrieval_cl.training.run import Callback, Run

_Rows = Int64[np.ndarray, " R"]
_Vectors = Float32[np.ndarray, "R D"]


@final
class ImageTextVectors(Callback):
    """Encodes rows of the data with the evaluation transform and fixed weights.

    Comes first among the callbacks: the weights of a step end what was kept.

    Attributes:
        encoder: what is trained.
    """

    def __init__(
        self,
        data: ImageTextData,
        encoder: ImageTextEncoder,
        *,
        precision: Literal["auto", "fp32", "bf16"],
    ) -> None:
        """`precision` is that of training, and so is that of mining and of the evaluations in between."""
        self.encoder = encoder
        self._data = data
        self._precision = precision
        self._tokens: Ragged | None = None
        self._kept: dict[str, tuple[_Rows, _Vectors]] = {}

    def images(self, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
        """Unit rows of the given images; asked for again, those of the last call are not encoded anew."""
        return self._of("images", rows, self._encode_images)

    def captions(self, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
        """Unit rows of the given captions, kept likewise."""
        return self._of("captions", rows, self._encode_captions)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Forgets the vectors of the weights before."""
        self._kept.clear()

    def _of(self, kind: str, rows: _Rows, encode: Callable[[_Rows], _Vectors]) -> _Vectors:
        kept = self._kept.get(kind)
        if kept is None or not np.array_equal(kept[0], rows):
            kept = self._kept[kind] = rows, encode(rows)
        return kept[1]

    def _encode_images(self, rows: _Rows) -> _Vectors:
        return self.encoder.encode_images(self._data.images, rows=rows, compute_dtype=self._dtype)

    def _encode_captions(self, rows: _Rows) -> _Vectors:
        if self._tokens is None:
            # Once a run: a tokenizer does not change with the weights.
            self._tokens = self.encoder.tokenize(self._data.captions)
        return self.encoder.encode_texts(self._tokens.take(rows), compute_dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype | None:
        resolved = resolve_precision(self._precision, self.encoder.device)
        return torch.bfloat16 if resolved == "bf16" else None

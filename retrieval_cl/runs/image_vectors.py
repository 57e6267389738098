"""Features of images under the weights of the moment; evaluation and mining at one step share them."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.images import Images
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.training.device import resolve_precision
from retrieval_cl.training.run import Callback, Run


@final
class ImageVectors(Callback):
    """Encodes images with the evaluation transform and fixed weights.

    Comes first among the callbacks: the weights of a step end what was kept.
    """

    def __init__(
        self, images: Images, encoder: ImageEncoder, *, precision: Literal["auto", "fp32", "bf16"]
    ) -> None:
        """`precision` is that of training, and so is that of mining and of the evaluations in between."""
        self._images = images
        self._encoder = encoder
        self._precision = precision
        self._kept: tuple[Int64[np.ndarray, " R"], Float32[np.ndarray, "R F"]] | None = None

    def of(self, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R F"]:
        """Unit rows of the given images; asked for again, those of the last call are not encoded anew."""
        if self._kept is None or not np.array_equal(self._kept[0], rows):
            resolved = resolve_precision(self._precision, self._encoder.device)
            dtype = torch.bfloat16 if resolved == "bf16" else None
            self._kept = rows, self._encoder.encode(self._images, rows=rows, compute_dtype=dtype)
        return self._kept[1]

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Forgets the vectors of the weights before."""
        self._kept = None

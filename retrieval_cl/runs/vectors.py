"""Vectors of texts under the weights of the moment; evaluation and mining at one step share them."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.training.device import resolve_precision
from retrieval_cl.training.run import Callback, Run


@final
class Vectors(Callback):
    """Encodes prepared texts. Comes first among the callbacks: the weights of a step end what was kept."""

    def __init__(
        self, text: PreparedText, encoder: TextEncoder, *, precision: Literal["auto", "fp32", "bf16"]
    ) -> None:
        """`precision` is that of training, and so is that of mining and of the evaluations in between."""
        self._text = text
        self._encoder = encoder
        self._precision = precision
        self._passages: Float32[np.ndarray, "M D"] | None = None

    def queries(self, rows: Int64[np.ndarray, " Q"]) -> Float32[np.ndarray, "Q D"]:
        """Unit rows of the given queries."""
        tokens = self._text.query_tokens.take(rows)
        return self._encoder.encode(tokens, kind="query", compute_dtype=self._dtype())

    def passages(self) -> Float32[np.ndarray, "M D"]:
        """Unit rows of the corpus; encoded once a step."""
        if self._passages is None:
            tokens = self._text.passage_tokens
            self._passages = self._encoder.encode(tokens, kind="passage", compute_dtype=self._dtype())
        return self._passages

    def some_passages(self, rows: Int64[np.ndarray, " S"]) -> Float32[np.ndarray, "S D"]:
        """Unit rows of the given passages."""
        if self._passages is not None or len(rows) == len(self._text.passage_tokens):
            found: Float32[np.ndarray, "S D"] = self.passages()[rows]
            return found
        tokens = self._text.passage_tokens.take(rows)
        return self._encoder.encode(tokens, kind="passage", compute_dtype=self._dtype())

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Forgets the vectors of the weights before."""
        self._passages = None

    def _dtype(self) -> torch.dtype | None:
        resolved = resolve_precision(self._precision, self._encoder.device)
        return torch.bfloat16 if resolved == "bf16" else None

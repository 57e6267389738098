"""Vectors of texts under the weights of the moment; evaluation and mining at one step share them."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.text import Kind, TextEncoder
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.sharing import Alone, Sharing
from retrieval_cl.training.device import resolve_precision
from retrieval_cl.training.run import Callback, Run

_ALONE = Alone()


@final
class Vectors(Callback):
    """Encodes prepared texts. Comes first among the callbacks: the weights of a step end what was kept.

    Attributes:
        sharing: who encodes, and who searches with these vectors.
    """

    def __init__(
        self,
        text: PreparedText,
        encoder: TextEncoder,
        *,
        precision: Literal["auto", "fp32", "bf16"],
        sharing: Sharing = _ALONE,
    ) -> None:
        """`precision` is that of training, and so is that of mining and of the evaluations in between.

        Where `sharing` is among all ranks, all must ask for the same vectors in the same order.
        """
        self.sharing = sharing
        self._text = text
        self._encoder = encoder
        self._precision = precision
        self._passages: Float32[np.ndarray, "M D"] | None = None

    def queries(self, rows: Int64[np.ndarray, " Q"]) -> Float32[np.ndarray, "Q D"]:
        """Unit rows of the given queries."""
        return self._encode(self._text.query_tokens, rows, kind="query")

    def passages(self) -> Float32[np.ndarray, "M D"]:
        """Unit rows of the corpus; encoded once a step."""
        if self._passages is None:
            tokens = self._text.passage_tokens
            self._passages = self._encode(tokens, np.arange(len(tokens), dtype=np.int64), kind="passage")
        return self._passages

    def some_passages(self, rows: Int64[np.ndarray, " S"]) -> Float32[np.ndarray, "S D"]:
        """Unit rows of the given passages."""
        if self._passages is not None or len(rows) == len(self._text.passage_tokens):
            found: Float32[np.ndarray, "S D"] = self.passages()[rows]
            return found
        return self._encode(self._text.passage_tokens, rows, kind="passage")

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Forgets the vectors of the weights before."""
        self._passages = None

    def _encode(
        self, tokens: Ragged, rows: Int64[np.ndarray, " S"], *, kind: Kind
    ) -> Float32[np.ndarray, "S D"]:
        dtype = self._dtype()

        def make(places: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
            some = rows[places]
            return self._encoder.encode(tokens.take(some), kind=kind, compute_dtype=dtype, numbers=some)

        # Rows of like length are embedded together, and the longest come first.
        order = np.argsort(-tokens.counts[rows], kind="stable")
        return self.sharing.rows(order, self._encoder.dim, make=make)

    def _dtype(self) -> torch.dtype | None:
        resolved = resolve_precision(self._precision, self._encoder.device)
        return torch.bfloat16 if resolved == "bf16" else None

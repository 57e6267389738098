"""A sentence-transformers cross-encoder as the miner's reranker: rows in, scores out, longest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.quiet import no_progress_bars

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


@runtime_checkable
class Predicts(Protocol):
    """What is asked of a cross-encoder."""

    def predict(self, inputs: list[tuple[str, str]], *, batch_size: int, show_progress_bar: bool) -> Any:
        """One score a pair of texts."""
        ...


@final
class TextReranker:
    """Scores (query row, passage row) pairs by a cross-encoder, longest texts first."""

    def __init__(
        self, model: Predicts, *, queries: Sequence[str], passages: Sequence[str], batch_size: int = 64
    ) -> None:
        """`queries`, `passages`: the texts of all rows; `batch_size`: pairs of one forward pass."""
        self._model = model
        self._queries, self._passages = queries, passages
        self._query_chars, self._passage_chars = _lengths(queries), _lengths(passages)
        self._batch_size = batch_size

    def __call__(
        self, queries: Int64[np.ndarray, " P"], passages: Int64[np.ndarray, " P"]
    ) -> Float32[np.ndarray, " P"]:
        """Scores as the model's `predict` gives them, its activation included, in the given order."""
        # Pairs of like length stand together: little padding. The longest fail first where memory is short.
        order = np.argsort(-(self._query_chars[queries] + self._passage_chars[passages]), kind="stable")
        left = map(self._queries.__getitem__, queries[order].tolist())
        pairs = list(zip(left, map(self._passages.__getitem__, passages[order].tolist()), strict=True))
        given = self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False)
        found = np.asarray(given, dtype=np.float32)
        if found.shape != order.shape:
            raise InputError(
                f"the reranker gave scores of shape {found.shape} for {len(order)} pairs; one score a pair"
            )
        scores = np.empty(len(order), dtype=np.float32)
        scores[order] = found
        return scores


def load_reranker(
    path: str, *, queries: Sequence[str], passages: Sequence[str], device: str = "cpu"
) -> TextReranker:
    """The cross-encoder of a folder or model id.

    Raises:
        InputError: it cannot be loaded.
    """
    from sentence_transformers import CrossEncoder

    try:
        with no_progress_bars():
            model: CrossEncoder = CrossEncoder(path, device=device)
    except Exception as error:  # the model libraries raise anything, down to KeyError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"mining.reranker '{path}': cannot be loaded: {reason}") from error
    return TextReranker(model, queries=queries, passages=passages)


def _lengths(texts: Sequence[str]) -> Int64[np.ndarray, " T"]:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))

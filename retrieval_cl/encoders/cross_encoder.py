"""A sentence-transformers cross-encoder as the miner's reranker: rows in, scores out, longest first."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load import load_somewhere

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_NAME = "mining.reranker"
_WANTED = "the folder of a cross-encoder (it holds config.json)"


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
        InputError: it cannot be loaded, or gives more than one score a pair.
    """
    return TextReranker(_load(path, device=device), queries=queries, passages=passages)


def check_reranker(path: str) -> None:
    """Loads the cross-encoder and lets it go again.

    Raises:
        InputError: as `load_reranker`, or some of its weights are random: an encoder of single texts loads
            as well, with a head that knows nothing.
    """
    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            states.append(_load(path, device="cpu").state_dict())
    first, other = states
    if drawn := [name for name in first if not torch.equal(first[name], other[name])]:
        raise InputError(
            f"{_NAME} '{path}': no cross-encoder: {drawn[0].rpartition('model.')[2]} is not among its "
            f"weights; give {_WANTED} or a Hugging Face id such as org/name"
        )


def _load(path: str, *, device: str) -> CrossEncoder:
    def load(path: str, local_files_only: bool) -> CrossEncoder:
        from sentence_transformers import CrossEncoder

        with _silent():
            return CrossEncoder(path, device=device, local_files_only=local_files_only)

    model = load_somewhere(load, path, name=_NAME, wanted=_WANTED)
    if model.num_labels != 1:
        raise InputError(
            f"{_NAME} '{path}': gives {model.num_labels} scores a pair; a reranker gives one (num_labels 1)"
        )
    return model


@contextmanager
def _silent() -> Iterator[None]:
    # What is missing is said in one line by `check_reranker`; transformers prints a table of it.
    levels = {name: logging.getLogger(name) for name in ("transformers", "sentence_transformers")}
    before = {name: logger.level for name, logger in levels.items()}
    try:
        for logger in levels.values():
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for name, logger in levels.items():
            logger.setLevel(before[name])


def _lengths(texts: Sequence[str]) -> Int64[np.ndarray, " T"]:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))

"""Bags of words as sparse matrices, and the passages of highest summed weight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count, repeat
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing import order, shortlist

Words = Sequence[Sequence[str]]
_TILE_BYTES = 2**26


def number_words(words: Words) -> tuple[Ragged, dict[str, int]]:
    """Numbers the distinct words as they first occur; returns each text's numbers and the vocabulary."""
    vocabulary = dict(zip(dict.fromkeys(chain.from_iterable(words)), count(), strict=False))
    return look_up(words, vocabulary), vocabulary


def look_up(words: Words, vocabulary: dict[str, int]) -> Ragged:
    """The numbers of each text's words; words the vocabulary lacks are left out."""
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    numbers = np.fromiter(
        map(vocabulary.get, chain.from_iterable(words), repeat(-1)),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    rows = np.repeat(np.arange(len(words)), lengths)[numbers >= 0]
    offsets = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=len(words)), out=offsets[1:])
    return Ragged(offsets, numbers[numbers >= 0])


def count_words(numbers: Ragged, *, num_words: int) -> Any:
    """How often each text holds each word: scipy CSR [texts, words], float32, word numbers ascending."""
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(numbers.values), dtype=np.float32), numbers.values, numbers.offsets),
        shape=(len(numbers), num_words),
    )
    matrix.sum_duplicates()
    return matrix


def heaviest(queries: Any, weights: Any, *, k: int) -> Hits:
    """The k passages of largest `queries @ weights` of each query; a passage of weight 0 is no hit.

    Args:
        queries: scipy CSR [queries, words]: how often each query holds each word.
        weights: scipy CSR [words, passages], none negative.
        k: hits a query.

    Returns:
        Ordered by score descending, ties by row ascending; -1 and -inf fill up. A score is the sum in
        the order of word numbers, so it does not depend on the queries beside it.
    """
    width = max(1, -(-weights.shape[1] // shortlist.BLOCK)) * shortlist.BLOCK
    padded = scipy.sparse.csr_matrix(
        (weights.data, weights.indices, weights.indptr), shape=(weights.shape[0], width)
    )
    keys = torch.full((queries.shape[0], k), order.EMPTY)
    step = max(1, _TILE_BYTES // (4 * width))
    for start in range(0, queries.shape[0], step):
        scores = torch.from_numpy((queries[start : start + step] @ padded).toarray())
        keys[start : start + step] = _largest(scores, k=k)
    found, rows = order.unpack(keys)
    return Hits(found.numpy(), rows.numpy())


def _largest(scores: Float32[Tensor, "Q S"], *, k: int) -> Int64[Tensor, "Q k"]:
    # Some more than k, so that a run of equal scores at the k-th place is mostly seen to its end.
    values, columns, rest = shortlist.select(scores, count=k + max(32, k // 2))
    keys = order.best(order.pack(values, columns).masked_fill_(values <= 0, order.EMPTY), k=k)
    reached = order.unpack(keys[:, -1:])[0].clamp_min_(torch.finfo(torch.float32).tiny)
    for row in (rest >= reached).nonzero()[:, 0].tolist():
        tied = (scores[row] >= reached[row]).nonzero()[:, 0]
        keys[row] = order.best(order.pack(scores[row, tied], tied)[None], k=k)[0]
    return keys

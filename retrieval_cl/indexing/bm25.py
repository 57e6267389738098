"""BM25 over words, by bm25s: the lexical half of hybrid search, and the opponent of every model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, final

import bm25s
import scipy.sparse

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import postings
from retrieval_cl.indexing.bm25_tuning import Tuned, tune
from retrieval_cl.indexing.postings import Words

__all__ = ["Lexical", "Tuned", "Words", "tune"]


@final
class Lexical:
    """BM25 as Lucene computes it (Kamphuis et al. 2020, table 1), idf = log(1 + (N - n + 0.5) / (n + 0.5)).

    The weights are bm25s's own; the search is ours, because ties at the k-th place must not fall by chance.
    """

    def __init__(self, retriever: bm25s.BM25) -> None:
        self._retriever = retriever
        scores = retriever.scores
        # Columns of bm25s's matrix [passages, words] are the rows of its transpose: no copy.
        self._weights: Any = scipy.sparse.csr_matrix(
            (scores["data"], scores["indices"], scores["indptr"]),
            shape=(len(scores["indptr"]) - 1, scores["num_docs"]),
        )

    @classmethod
    def fit(cls, passage_words: Words, *, k1: float, b: float) -> Self:
        """Weighs the words of all passages.

        Args:
            passage_words: words of each passage, in order; a passage may have none.
            k1: how slowly repeats of a word saturate; above 0.
            b: how far a passage's length counts, 0 to 1.

        Raises:
            InputError: no passage holds a word, or k1 or b is out of range.
        """
        if not (k1 > 0 and 0 <= b <= 1):
            raise InputError(f"BM25 with k1={k1}, b={b}; expected k1 above 0 and b from 0 to 1")
        numbers, vocabulary = postings.number_words(passage_words)
        if not vocabulary:
            raise InputError(f"BM25: none of the {len(passage_words)} passages holds a word")
        # Numbers, not words: bm25s numbers words by a set's order, which changes from process to process.
        lists = [row.tolist() for row in map(numbers.__getitem__, range(len(numbers)))]
        retriever = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy", csc_backend="scipy")
        retriever.index((lists, vocabulary), create_empty_token=False, show_progress=False)
        return cls(retriever)

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._weights.shape[1])

    @property
    def k1(self) -> float:
        """How slowly repeats of a word saturate."""
        return float(self._retriever.k1)

    @property
    def b(self) -> float:
        """How far a passage's length counts."""
        return float(self._retriever.b)

    def search(self, query_words: Words, *, k: int) -> Hits:
        """The k passages of highest score; one that shares no word with the query is no hit.

        Args:
            query_words: words of each query; those no passage holds are ignored, repeats count.
            k: hits a query, at least 1; -1 and -inf fill up.
        """
        if k < 1:
            raise InputError(f"k is {k}; expected at least 1 hit a query")
        numbers = postings.look_up(query_words, self._retriever.vocab_dict)
        queries = postings.count_words(numbers, num_words=self._weights.shape[0])
        return postings.heaviest(queries, self._weights, k=k)

    def save(self, folder: Path) -> None:
        """Writes the weights in bm25s's own format: `bm25s.BM25.load(folder)` reads it too."""
        self._retriever.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote; the weights stay on disk, memory-mapped."""
        return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False))

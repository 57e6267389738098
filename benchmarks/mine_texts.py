"""Texts of the mining benchmark, drawn at random, and a static model of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.static import build_static
from retrieval_cl.encoders.text import TextEncoder

VOCABULARY = 20_000


@dataclass(frozen=True)
class Size:
    """Numbers of texts and of a vector."""

    queries: int
    passages: int
    dim: int


@dataclass(frozen=True)
class Data:
    """Texts, and the passage rows that match each query."""

    queries: list[str]
    passages: list[str]
    positives: Ragged

    @property
    def pairs(self) -> Dataset:
        """The peer's form: a row a query and positive."""
        rows = zip(self.positives.rows.tolist(), self.positives.values.tolist(), strict=True)
        found = [(self.queries[query], self.passages[passage]) for query, passage in rows]
        return Dataset.from_dict({"query": [pair[0] for pair in found], "positive": [p[1] for p in found]})


def draw_data(size: Size) -> Data:
    """Passages of 24 words; a query is six words of a passage and two others."""
    rng = np.random.default_rng(0)
    odds = 1 / np.arange(10, VOCABULARY + 10)
    odds /= odds.sum()
    words = rng.choice(VOCABULARY, size=(size.passages, 24), p=odds)
    first = np.arange(size.queries) % size.passages
    picked = np.take_along_axis(words[first], rng.integers(0, 24, size=(size.queries, 6)), axis=1)
    asked = np.concatenate([picked, rng.choice(VOCABULARY, size=(size.queries, 2), p=odds)], axis=1)
    also = np.flatnonzero(np.arange(size.queries) % 10 == 0)
    rows = np.concatenate([np.arange(size.queries), also])
    positives = np.concatenate([first, (first[also] + 1) % size.passages])
    # The number makes each text another one: the peer takes equal texts for one.
    queries = [f"q{row} {_join(line)}" for row, line in enumerate(asked)]
    passages = [f"p{row} {_join(line)}" for row, line in enumerate(words)]
    return Data(queries, passages, Ragged.from_pairs(rows, positives, size.queries))


def _join(words: np.ndarray) -> str:
    return " ".join(f"w{word}" for word in words)


def make_model(data: Data, size: Size) -> TextEncoder:
    """A static model over whole words, which leaves out the numbers of the texts."""
    vocabulary = {"[UNK]": 0} | {f"w{word}": word + 1 for word in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return build_static(tokenizer, data.passages[:2000], dim=size.dim, seed=0)

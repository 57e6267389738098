"""Words that stand in the same places: found from captions alone, by the contexts that words share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import final

import numpy as np
from scipy.sparse import csr_array

from retrieval_cl.sources.normalise import normalise_text

WORD = re.compile(r"\w+(?:[-'\N{RIGHT SINGLE QUOTATION MARK}]\w+)*")
"""A word of a text; what stands between words is left as it is."""

# Rows of the square of all words that are compared at once.
_BLOCK = 256


def words_of(text: str) -> list[str]:
    """The words of a text, normalised."""
    return WORD.findall(normalise_text(text))


@final
@dataclass(frozen=True)
class WordNeighbours:
    """What captions tell of their words.

    Attributes:
        neighbours: word -> words that stand in the same places, the most alike first.
        rarity: word -> log((captions + 1) / captions with it), above 0: "a" and "the" have little of it.
    """

    neighbours: Mapping[str, tuple[str, ...]]
    rarity: Mapping[str, float]


def find_neighbours(
    captions: Sequence[str], *, count: int = 10, min_count: int = 2, max_words: int = 20_000
) -> WordNeighbours:
    """The words whose contexts are most like a word's own.

    A context is the word before together with the word after (or the end of the caption). Words are compared
    by the cosine of log(1 + times met in a context): distributional similarity (Harris 1954) in the narrowest
    window. Equal captions count once. Where one word begins with the other, as "bag" and "bags", they
    may be forms of one word, and are no neighbours.

    Args:
        captions: of the train split.
        count: neighbours of a word, ties in alphabetical order.
        min_count: a word that has neighbours or is one is met at least so often.
        max_words: the most frequent ones that are compared; bounds the time, which grows with the square.
    """
    texts = [words_of(caption) for caption in dict.fromkeys(map(normalise_text, captions))]
    counts = Counter(word for words in texts for word in words)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
    chosen = sorted(word for word in frequent if counts[word] >= min_count)
    found = _most_alike(_contexts(texts, chosen), chosen, count=count)
    spread = Counter(word for words in texts for word in set(words))
    rarity = {word: math.log((len(texts) + 1) / number) for word, number in spread.items()}
    return WordNeighbours({word: others for word, others in found if others}, rarity)


def _contexts(texts: Sequence[Sequence[str]], chosen: Sequence[str]) -> csr_array:
    """How much each of the chosen words was met in each context, as unit rows."""
    numbers = {word: number for number, word in enumerate(chosen)}
    contexts: dict[tuple[str, str], int] = {}
    met = Counter(
        (numbers[word], contexts.setdefault(context, len(contexts)))
        for word, context in _met(texts)
        if word in numbers
    )
    pairs = np.array(list(met), dtype=np.int64).reshape(-1, 2)
    weights = np.log1p(np.fromiter(met.values(), dtype=np.float64, count=len(met)))
    lengths = np.sqrt(np.bincount(pairs[:, 0], weights=weights**2, minlength=len(chosen)))
    shape = (len(chosen), max(1, len(contexts)))
    return csr_array((weights / lengths[pairs[:, 0]], (pairs[:, 0], pairs[:, 1])), shape=shape)


def _met(texts: Sequence[Sequence[str]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each word with its context; the empty word stands before the first and after the last."""
    for words in texts:
        yield from zip(words, zip(["", *words[:-1]], [*words[1:], ""], strict=True), strict=True)


def _most_alike(
    rows: csr_array, words: Sequence[str], *, count: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The words of the rows with the greatest positive products with the row of each word."""
    for start in range(0, rows.shape[0], _BLOCK):
        products = (rows[start : start + _BLOCK] @ rows.T).tocsr()
        for line, (begin, end) in enumerate(pairwise(products.indptr)):
            word, others = words[start + line], products.indices[begin:end]
            order = np.lexsort((others, -products.data[begin:end]))
            alike = (words[other] for other in others[order].tolist())
            yield word, tuple(islice((other for other in alike if not _may_be_forms(word, other)), count))


def _may_be_forms(left: str, right: str) -> bool:
    return left.startswith(right) or right.startswith(left)

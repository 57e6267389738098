"""Texts as numbers of their words, for shingles: the same normalised word has the same number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.normalise import normalise_text


def word_ids(texts: Sequence[str]) -> Ragged:
    """Numbers of the words of each text in order, from 0 on; words are what white space parts."""
    rows = [normalise_text(text).split() for text in texts]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(chain.from_iterable(rows)))}
    return Ragged.from_lists([[numbers[word] for word in row] for row in rows])

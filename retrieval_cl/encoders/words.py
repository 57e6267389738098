"""Words for BM25 and for vocabularies: the same code-aware splitting as the static encoder's tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from retrieval_cl.encoders.splitting import make_normalizer, make_pre_tokenizer

# What `splitting` does to ASCII text in one pass: equal by test, and about four times as fast.
_find_ascii_words = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+").findall
_cut_ascii_plurals = re.compile(r"(?<=[a-z][a-z][a-rtv-z])s\b").sub
_NORMALIZER = make_normalizer()
_PRE_TOKENIZER = make_pre_tokenizer()


def split_words(texts: Iterable[str]) -> list[list[str]]:
    """Lower-case words: camelCase, snake_case and digits come apart; no plural s, no punctuation."""
    return [_split_ascii(text) if text.isascii() else _split_any(text) for text in texts]


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in all texts together."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_split_ascii(text) if text.isascii() else _split_any(text))
    return counts


def _split_ascii(text: str) -> list[str]:
    # Lower-casing the joined line is one call where lower-casing each word would be a hundred.
    return _cut_ascii_plurals("", " ".join(_find_ascii_words(text)).lower()).split()


def _split_any(text: str) -> list[str]:
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]

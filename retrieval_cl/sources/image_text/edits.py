"""Edited captions, which do not describe the image any more: two words swapped, or one replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.sources.image_text.relations import Matches
from retrieval_cl.sources.image_text.word_neighbours import WORD, WordNeighbours, words_of
from retrieval_cl.sources.normalise import normalise_text

TRIES = 8
NUMBERS = 3
"""Random numbers that a try takes: which kind of edit, which word, with which other one."""


@final
class CaptionEdits:
    """Edits captions of images; a pure function of the caption, the image and the random numbers given.

    A word is chosen with a weight of its rarity, so that "a" seldom changes. It is swapped with another
    word, or gives way to one of its neighbours that stands in no caption known to match the image. No edit
    equals, normalised, such a caption. That an edit is false is likely, not certain: "red and blue" swapped
    says the same, and what a photo shows besides its captions is not known (the "hard negative captions" of
    NegCLIP, Yuksekgonul et al. 2023, share this).
    """

    def __init__(self, captions: Sequence[str], *, matches: Matches, neighbours: WordNeighbours) -> None:
        """Takes over the captions of all splits, what matches them, and what train captions tell of words."""
        self._captions = captions
        self._matches = matches
        self._words = neighbours

    def make(
        self,
        captions: Int64[np.ndarray, " B"],
        images: Int64[np.ndarray, " B"],
        numbers: Float64[np.ndarray, "B m T 3"],
    ) -> list[str | None]:
        """`m` different edits of each caption, caption by caption; None where no try gave one.

        Args:
            captions: caption rows of the train split.
            images: what each of them describes.
            numbers: random ones, at least 0 and below 1; `TRIES` tries an edit, `NUMBERS` a try.
        """
        made: list[str | None] = []
        for caption, image, of_row in zip(captions.tolist(), images.tolist(), numbers.tolist(), strict=True):
            made += self._edits(caption, image, of_row)
        return made

    def _edits(
        self, caption: int, image: int, numbers: Sequence[Sequence[Sequence[float]]]
    ) -> list[str | None]:
        true = [self._captions[item] for item in self._matches.known[image].tolist()]
        barred = {normalise_text(text) for text in true}
        words = {word for text in true for word in words_of(text)}
        source = _Split(self._captions[caption], self._words)
        found: list[str | None] = []
        for tries in numbers:
            edits = (source.edit(*one, barred=words) for one in tries)
            edit = next((text for text in edits if text and normalise_text(text) not in barred), None)
            found.append(edit)
            if edit is not None:
                barred.add(normalise_text(edit))
        return found


class _Split:
    """A caption in words, with what stands between them."""

    def __init__(self, text: str, words: WordNeighbours) -> None:
        self._text = text
        self._places = list(WORD.finditer(text))
        self._names = [normalise_text(place.group()) for place in self._places]
        self._rarity = np.array([words.rarity.get(name, 0.0) for name in self._names])
        self._neighbours = [words.neighbours.get(name, ()) for name in self._names]

    def edit(self, kind: float, which: float, other: float, *, barred: set[str]) -> str | None:
        """Swaps or replaces, as the numbers say; None where that cannot be done."""
        return self._swap(which, other) if kind < 0.5 else self._replace(which, other, barred=barred)

    def _swap(self, which: float, other: float) -> str | None:
        first = _choose(self._rarity, which)
        if first is None:
            return None
        unlike = np.array([name != self._names[first] for name in self._names])
        second = _choose(self._rarity * unlike, other)
        if second is None:
            return None
        left, right = self._places[min(first, second)], self._places[max(first, second)]
        between = self._text[left.end() : right.start()]
        swapped = f"{_as(right.group(), left)}{between}{_as(left.group(), right)}"
        return f"{self._text[: left.start()]}{swapped}{self._text[right.end() :]}"

    def _replace(self, which: float, other: float, *, barred: set[str]) -> str | None:
        place = _choose(self._rarity * np.array([bool(words) for words in self._neighbours]), which)
        if place is None:
            return None
        words = [word for word in self._neighbours[place] if word not in barred]
        if not words:
            return None
        old = self._places[place]
        new = _as(words[int(other * len(words))], old)
        return f"{self._text[: old.start()]}{new}{self._text[old.end() :]}"


def _choose(weights: Float64[np.ndarray, " W"], number: float) -> int | None:
    """A place by its weight; None where all are 0."""
    sums = np.cumsum(weights)
    if not len(sums) or sums[-1] <= 0:
        return None
    return int(np.searchsorted(sums, number * sums[-1], side="right"))


def _as(word: str, place: re.Match[str]) -> str:
    """The word with the first letter, large or small, that its new place has."""
    if place.group()[0].isupper():
        return word[0].upper() + word[1:]
    # What is not merely capitalised, such as "USA", stays.
    return word[0].lower() + word[1:] if word[1:] == word[1:].lower() else word

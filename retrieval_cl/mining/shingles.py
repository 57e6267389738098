"""Texts as sets of shingles, by numbers alone: MinHash signatures, exact Jaccard similarity of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64, UInt32, UInt64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.noise import hash_bits, mix

WIDTH = 3
NUM_HASHES = 64


@final
@dataclass(frozen=True, eq=False)
class ShingleSets:
    """The set of shingles of each row.

    Attributes:
        sets: distinct numbers of the shingles of each row, from 0 on; a row without words has none.
        signatures: the least value of each of H hash functions over a row's set (Broder 1997, "On the
            resemblance and containment of documents"); rows without a set agree with each other.
    """

    sets: Ragged
    signatures: UInt32[np.ndarray, "M H"]

    @classmethod
    def from_words(cls, words: Ragged, *, width: int = WIDTH, num_hashes: int = NUM_HASHES) -> ShingleSets:
        """Shingles of `width` words that follow each other; a shorter text is one shingle.

        Args:
            words: number of each word (or token) of each row, in the order of the text.
            width: words in a shingle.
            num_hashes: H; the estimate's standard error is at most 0.5 / sqrt(H).
        """
        rows, hashes = _shingles(words, width=width)
        names, numbers = np.unique(hashes, return_inverse=True)
        sets = Ragged.from_pairs(rows, numbers.astype(np.int64, copy=False), len(words))
        return cls(sets, _signatures(sets, names, num_hashes=num_hashes))

    def estimate(
        self, left: Int64[np.ndarray, " P"], right: Int64[np.ndarray, " P"]
    ) -> Float64[np.ndarray, " P"]:
        """Estimated Jaccard similarity of pairs of rows: the share of equal places of their signatures."""
        shares: Float64[np.ndarray, " P"] = (self.signatures[left] == self.signatures[right]).mean(axis=1)
        return shares

    def jaccard(
        self, left: Int64[np.ndarray, " P"], right: Int64[np.ndarray, " P"]
    ) -> Float64[np.ndarray, " P"]:
        """Exact Jaccard similarity of pairs of rows; 0 where either set is empty."""
        one, other = self.sets.take(left), self.sets.take(right)
        width = int(self.sets.values.max(initial=0)) + 1
        keys = np.sort(np.concatenate([one.rows * width + one.values, other.rows * width + other.values]))
        # A shingle stands once in each set: twice in a pair means in both.
        shared = np.bincount(keys[1:][keys[1:] == keys[:-1]] // width, minlength=len(left))
        union = one.counts + other.counts - shared
        similarities: Float64[np.ndarray, " P"] = shared / np.maximum(union, 1)
        return similarities


def _shingles(words: Ragged, *, width: int) -> tuple[Int64[np.ndarray, " S"], UInt64[np.ndarray, " S"]]:
    # The row of each shingle, and its hash; a place beyond the end of a short text counts as word -1.
    counts, lengths = np.maximum(words.counts - width + 1, words.counts > 0), words.counts
    rows = np.repeat(np.arange(len(words), dtype=np.int64), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    hashes = np.zeros(len(rows), dtype=np.uint64)
    for step in range(width):
        inside = within + step < lengths[rows]
        place = np.where(inside, words.offsets[rows] + within + step, 0)
        word = np.where(inside, words.values[place], -1).astype(np.int64, copy=False)
        hashes = mix(hashes ^ word.view(np.uint64))
    return rows, hashes


def _signatures(
    sets: Ragged, names: UInt64[np.ndarray, " V"], *, num_hashes: int
) -> UInt32[np.ndarray, "M H"]:
    signatures = np.full((len(sets), num_hashes), np.iinfo(np.uint32).max, dtype=np.uint32)
    filled = np.flatnonzero(sets.counts)
    if not len(filled):
        return signatures
    zero = np.zeros(1, dtype=np.int64)
    for number in range(num_hashes):
        factor = hash_bits(0, number, zero, zero) | np.uint64(1)
        # The names are random bits, so that an odd factor and the upper half are hash enough.
        hashes = ((names * factor) >> np.uint64(32)).astype(np.uint32)
        signatures[filled, number] = np.minimum.reduceat(hashes[sets.values], sets.offsets[:-1][filled])
    return signatures

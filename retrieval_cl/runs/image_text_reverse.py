"""Candidates of the reverse direction: the images that score high with an image's captions, as texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.scorers import Scorer, vector_scorer

# Images whose captions are searched together.
_CHUNK = 4096


@final
@dataclass(frozen=True, eq=False)
class Found:
    """What was found for each image.

    Attributes:
        texts: of the found images the text that scores highest with the image asked for, and that score; in
            the order of the images' scores.
        images: the image number of each; -1 where there is none.
    """

    texts: Hits
    images: Int64[np.ndarray, "N k"]


def through_captions(
    images: Float32[np.ndarray, "N D"],
    texts: Float32[np.ndarray, "T D"],
    own: Ragged,
    *,
    search: Search,
    depth: int,
    chunk_size: int = _CHUNK,
) -> Found:
    """The `depth` images nearest to any text of an image, itself among them; each with one of its texts.

    Args:
        images: unit rows.
        texts: unit rows.
        own: image number -> its texts.
        search: among the images.
        depth: images wanted, at most as many as there are.
        chunk_size: images done at once; bounds the memory.
    """
    score = vector_scorer(images, texts)
    parts = []
    for start in range(0, len(images), chunk_size):
        numbers = np.arange(start, min(start + chunk_size, len(images)), dtype=np.int64)
        nearest = _nearest(texts, own.take(numbers), search=search, depth=depth)
        parts.append(Found(_best_texts(numbers, nearest, own, score), nearest))
    return Found(
        Hits(
            np.concatenate([part.texts.scores for part in parts]),
            np.concatenate([part.texts.rows for part in parts]),
        ),
        np.concatenate([part.images for part in parts]),
    )


def _nearest(
    texts: Float32[np.ndarray, "T D"], own: Ragged, *, search: Search, depth: int
) -> Int64[np.ndarray, "Q k"]:
    """Images by their greatest score with one of a line's texts, ties by number; -1 pads."""
    asked, place = np.unique(own.values, return_inverse=True)
    hits = search(texts[asked], depth)
    line = np.repeat(own.rows, depth)
    scores, rows = hits.scores[place].reshape(-1), hits.rows[place].reshape(-1)
    there = rows >= 0
    line, scores, rows = line[there], scores[there], rows[there]
    order = np.lexsort((rows, -scores, line))
    line, rows = line[order], rows[order]
    # The first time that an image comes up for a line is that of its greatest score.
    _, first = np.unique(line * (rows.max(initial=0) + 1) + rows, return_index=True)
    first.sort()
    ranked = Ragged(np.searchsorted(line[first], np.arange(len(own) + 1)).astype(np.int64), rows[first])
    return ranked.padded(width=max(depth, int(ranked.counts.max(initial=1))))[:, :depth]


def _best_texts(
    numbers: Int64[np.ndarray, " Q"], nearest: Int64[np.ndarray, "Q k"], own: Ragged, score: Scorer
) -> Hits:
    """Of each found image the text that scores highest with the image asked for, ties by number."""
    line, column = np.nonzero(nearest >= 0)
    theirs = own.take(nearest[line, column])
    pair = theirs.rows
    scores = score(numbers[line[pair]], theirs.values)
    best = np.lexsort((theirs.values, -scores, pair))[theirs.offsets[:-1]]
    found = np.full(nearest.shape, -1, dtype=np.int64)
    found[line, column] = theirs.values[best]
    at = np.full(nearest.shape, -np.inf, dtype=np.float32)
    at[line, column] = scores[best]
    return Hits(at, found)

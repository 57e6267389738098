"""Train captions as distinct texts, numbered anew, and which train images have which of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import Matches


@final
@dataclass(frozen=True, eq=False)
class TrainTexts:
    """Train images by number, in the order of their rows; their captions as texts, in that of their items.

    Attributes:
        images: image row of each number.
        first: of each text, the first train caption that has it.
        own: image number -> its texts.
        known: image number -> texts known to match it, its own among them.
        copies: text -> all train captions that have it.
        holders: text -> numbers of the images that have it.
        pairs: image number * texts + text, of each train caption, ascending.
        captions: the caption row of each of `pairs`.
    """

    images: Int64[np.ndarray, " N"]
    first: Int64[np.ndarray, " T"]
    own: Ragged
    known: Ragged
    copies: Ragged
    holders: Ragged
    pairs: Int64[np.ndarray, " P"]
    captions: Int64[np.ndarray, " P"]

    @classmethod
    def of(cls, data: ImageTextData, matches: Matches) -> TrainTexts:
        """Those of the split train."""
        images = data.splits["train"]
        captions = data.captions_of(images)
        owner = np.searchsorted(images, data.caption_images[captions]).astype(np.int64)
        items, first, text = np.unique(
            matches.caption_items[captions], return_index=True, return_inverse=True
        )
        # Of a text that an image has twice, the first caption.
        pairs, place = np.unique(owner * len(items) + text, return_index=True)
        known = matches.known.take(images)
        known_text = np.minimum(np.searchsorted(items, known.values), len(items) - 1)
        # The right captions of a copy in another split may be no train captions.
        there = items[known_text] == known.values
        return cls(
            images=images,
            first=captions[first],
            own=Ragged.from_pairs(owner, text, len(images)),
            known=Ragged.from_pairs(known.rows[there], known_text[there], len(images)),
            copies=Ragged.from_pairs(text, captions, len(items)),
            holders=Ragged.from_pairs(text, owner, len(items)),
            pairs=pairs,
            captions=captions[place],
        )

    def caption_of(
        self, numbers: Int64[np.ndarray, " P"], texts: Int64[np.ndarray, " P"]
    ) -> Int64[np.ndarray, " P"]:
        """The caption row of images that have these texts."""
        place = np.searchsorted(self.pairs, wanted := numbers * len(self.first) + texts)
        assert (self.pairs[place] == wanted).all(), "an image lacks the text"
        rows: Int64[np.ndarray, " P"] = self.captions[place]
        return rows

    def draw(
        self, texts: Int64[np.ndarray, "N n"], noise: Float64[np.ndarray, "N n"]
    ) -> Int64[np.ndarray, "N n"]:
        """One of the captions that have each text, as numbers in (0, 1) choose it."""
        counts = self.copies.counts[texts]
        place = self.copies.offsets[texts] + np.minimum((noise * counts).astype(np.int64), counts - 1)
        rows: Int64[np.ndarray, "N n"] = self.copies.values[place]
        return rows

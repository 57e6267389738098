"""Which captions are known to match which images: the one relation of training, mining and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.images.copies import same_pixels
from retrieval_cl.sources.normalise import text_groups


@final
@dataclass(frozen=True, eq=False)
class Matches:
    """Who matches whom, by item ids: image i and caption c match where `caption_items[c]` is in `known[i]`.

    The relation holds in both directions. It is not transitive: of two images that share one of their
    captions, each keeps its other captions for itself.

    Attributes:
        image_items: item id of each image; copies share one.
        caption_items: item id of each caption: the first caption row with the same normalised text.
        known: image row -> item ids, ascending, of the captions of every image with its item id.
    """

    image_items: Int64[np.ndarray, " N"]
    caption_items: Int64[np.ndarray, " C"]
    known: Ragged


def find_matches(data: ImageTextData, *, image_items: Int64[np.ndarray, " N"] | None = None) -> Matches:
    """What matches what in a data set, over all its splits.

    Args:
        data: images and captions.
        image_items: item id of each image, such as `copies.join_items` gives it where near copies are to
            count as the same; None: images with equal pixels are one item.
    """
    if image_items is None:
        image_items = same_pixels(data.images) if data.same is None else data.same
    assert len(image_items) == len(data.images), (len(image_items), len(data.images))
    caption_items = text_groups(data.captions)
    items, place = np.unique(image_items, return_inverse=True)
    by_item = Ragged.from_pairs(place[data.caption_images], caption_items, len(items))
    return Matches(image_items, caption_items, by_item.take(place))

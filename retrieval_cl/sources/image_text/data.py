"""What every source of images with captions gives: images, captions, labels and splits, by row number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.images import Images
from retrieval_cl.core.relations import Ragged


@final
@dataclass(frozen=True, eq=False)
class ImageTextData:
    """One data set of images with captions.

    Attributes:
        name: for tables and manifests.
        images: all that could be read and have a caption, of all splits.
        ids: distinct names, such as the path below the folder.
        captions: of all images; white space normalised, none empty, none twice of one image.
        caption_images: image row of each caption, ascending; every image has at least one.
        labels: class of each image for zero-shot classification, a place in `classes`, -1 where it is not
            known; None where there are none.
        classes: names of the classes; empty without labels.
        splits: split name ("train", "dev", "test") -> image rows, ascending; no row stands in two.
        made_by: how it was made (source, counts, what was left out), as JSON values, for manifests.
        same: of each image, the first row with the same pixels (streamed: with the same file), itself if
            there is none before; None: not known.
    """

    name: str
    images: Images
    ids: Sequence[str]
    captions: Sequence[str]
    caption_images: Int64[np.ndarray, " C"]
    labels: Int64[np.ndarray, " N"] | None
    classes: tuple[str, ...]
    splits: Mapping[str, Int64[np.ndarray, " n"]]
    made_by: Mapping[str, Any] = field(default_factory=dict)
    same: Int64[np.ndarray, " N"] | None = None

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.images), (len(self.ids), len(self.images))
        assert len(self.captions) == len(self.caption_images)
        assert (np.diff(self.caption_images) >= 0).all(), "captions must stand in the order of their images"
        assert len(np.unique(self.caption_images)) == len(self.images), "an image has no caption"
        assert self.labels is None or len(self.labels) == len(self.images)
        assert self.same is None or len(self.same) == len(self.images)
        rows = np.concatenate([*self.splits.values(), np.zeros(0, np.int64)])
        assert len(np.unique(rows)) == len(rows), "an image stands in two splits"

    def captions_of(self, rows: Int64[np.ndarray, " R"]) -> Int64[np.ndarray, " S"]:
        """Caption rows of the given images: all of them, ascending by image, then by caption."""
        bounds = np.searchsorted(self.caption_images, np.arange(len(self.images) + 1)).astype(np.int64)
        every = Ragged(bounds, np.arange(len(self.captions), dtype=np.int64))
        return every.take(np.unique(rows)).values.astype(np.int64, copy=False)

"""What every image source gives: decoded images, their ids, labels and splits, all by int64 row number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.images import Images


@final
@dataclass(frozen=True, eq=False)
class ImageData:
    """One image data set.

    Attributes:
        name: for tables and manifests.
        images: all that could be decoded, of all splits.
        ids: distinct names, such as the path below the folder.
        labels: class of each image, a place in `classes`; None where there are none.
        classes: names of the classes; empty without labels.
        splits: split name ("train", "dev", "test") -> image rows, ascending; no row stands in two.
        made_by: how it was made (source, counts, broken files), as JSON values, for manifests.
    """

    name: str
    images: Images
    ids: Sequence[str]
    labels: Int64[np.ndarray, " N"] | None
    classes: tuple[str, ...]
    splits: Mapping[str, Int64[np.ndarray, " n"]]
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.images), (len(self.ids), len(self.images))
        assert self.labels is None or len(self.labels) == len(self.images)
        rows = np.concatenate([*self.splits.values(), np.zeros(0, np.int64)])
        assert len(np.unique(rows)) == len(rows), "an image stands in two splits"

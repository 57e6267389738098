"""Images before they are decoded, with the captions of each: what the reader of every kind gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.sources.image_text.gather import Gathered
from retrieval_cl.sources.images.encoded import Encoded, Part, PickedItems
from retrieval_cl.sources.images.labels import as_classes


@final
@dataclass(frozen=True, eq=False)
class CaptionedPart:
    """The images of one file or split.

    Attributes:
        part: images that have a caption, with splits and labels.
        captions: of each image; at least one, distinct.
        lost: images that are left out before any is decoded: name -> reason.
        counts: what else was left out, by kind.
    """

    part: Part
    captions: Sequence[Sequence[str]]
    lost: Mapping[str, str]
    counts: Mapping[str, int]


def captioned(
    gathered: Gathered,
    encoded: Encoded,
    *,
    rows: Sequence[int],
    split: str | None,
    class_names: Sequence[str] | None,
    stamp: str,
    where: str,
) -> CaptionedPart:
    """Joins the text side of a source with its images.

    Args:
        gathered: the text side.
        encoded: all images.
        rows: the image of each that was gathered.
        split: of all images, where no row names one.
        class_names: of labels that are numbers.
        stamp: changes when the images do.
        where: what holds the labels, for messages.
    """
    chosen = np.array(rows, dtype=np.int64)
    labels: Int64[np.ndarray, " N"] | None = None
    classes: tuple[str, ...] = ()
    if gathered.labels is not None:
        labels, classes = as_classes(gathered.labels, names=class_names, where=where)
    splits = gathered.splits
    if splits is None and split is not None:
        splits = [split] * len(chosen)
    stamp = f"{stamp} {hashlib.blake2b(chosen.tobytes(), digest_size=8).hexdigest()}"
    part = Part(PickedItems(gathered.names, encoded, chosen), splits, labels, classes, stamp)
    return CaptionedPart(part, gathered.captions, gathered.lost, gathered.counts)


def caption_rows(
    captions: Sequence[Sequence[str]],
) -> tuple[list[str], Int64[np.ndarray, " C"]]:
    """All captions of all images, one after the other, and the image of each."""
    counts = np.array([len(each) for each in captions], dtype=np.int64)
    return [text for each in captions for text in each], np.repeat(np.arange(len(captions)), counts)

"""The handwritten digits of scikit-learn with made captions, of which many images share each: no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from retrieval_cl.sources.image_text.parts import CaptionedPart
from retrieval_cl.sources.images.digits import read_digits
from retrieval_cl.sources.images.encoded import Part

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WEIGHTS = ("light", "medium", "bold")


def read_caption_digits(
    captions: Literal["class", "several"],
    *,
    warped: bool,
    split_seed: int,
    test_share: float,
    dev_share: float,
) -> list[CaptionedPart]:
    """The 1,797 digits with their captions; classes are the words "zero" to "nine".

    Args:
        captions: class: one caption a class, ten in all; several: four an image, by word, numeral and weight
            of its strokes, 80 in all.
        warped: as for `read_digits`, like the rest.
        split_seed: of the permutation that splits them.
        test_share: share of the images.
        dev_share: share of the images.
    """
    [part] = read_digits(warped=warped, split_seed=split_seed, test_share=test_share, dev_share=dev_share)
    assert part.labels is not None and part.splits is not None, "digits come with both"
    made = CAPTIONS[captions](part.labels.tolist(), stroke_weights(part))
    worded = Part(part.encoded, part.splits, part.labels, WORDS, part.stamp)
    return [CaptionedPart(worded, made, {}, {})]


def stroke_weights(part: Part) -> list[str]:
    """Each image's weight: in which third of the train images its ink, the sum of its pixels, would stand."""
    ink: Float64[np.ndarray, " N"] = np.array(
        [np.asarray(item).sum() for item in part.encoded.read(0, len(part.encoded))], dtype=np.float64
    )
    train = np.array(part.splits) == "train"
    bounds = np.quantile(ink[train], [1 / 3, 2 / 3])
    return [WEIGHTS[third] for third in np.searchsorted(bounds, ink, side="right")]


def class_captions(digits: Sequence[int], weights: Sequence[str]) -> list[list[str]]:
    """One caption an image, its class."""
    return [[f"a handwritten {WORDS[digit]}"] for digit, _ in zip(digits, weights, strict=True)]


def several_captions(digits: Sequence[int], weights: Sequence[str]) -> list[list[str]]:
    """Four captions an image: two that all of its class share, two that those of its weight share."""
    return [
        [
            f"a handwritten {WORDS[digit]}",
            f"the digit {digit}",
            f"a {weight} handwritten {WORDS[digit]}",
            f"the numeral {digit} in {weight} strokes",
        ]
        for digit, weight in zip(digits, weights, strict=True)
    ]


CAPTIONS = {"class": class_captions, "several": several_captions}

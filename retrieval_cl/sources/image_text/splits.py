"""Splits of images with captions: a drawn held-out caption or picture never stands in train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Int64, UInt8

from retrieval_cl.sources.images.held_out import split_rows
from retrieval_cl.sources.normalise import merge_rows, text_groups


def split_images(
    given: Sequence[str],
    digests: UInt8[np.ndarray, "N 16"],
    captions: Sequence[str],
    caption_images: Int64[np.ndarray, " C"],
    *,
    test_share: float | None,
    dev_share: float,
    seed: int,
) -> tuple[dict[str, Int64[np.ndarray, " n"]], int]:
    """Rows of each split, and how many train images were left out as copies of held-out ones.

    As `split_rows`; and images that share a caption (normalised) are drawn together, by any chain. Splits
    that the data names stay as they are but for copies: a caption may stand in two of them.

    Args:
        given: split of each image in the data.
        digests: of each image: equal where the images are.
        captions: of all images.
        caption_images: image of each caption.
        test_share: as for `split_rows`, like the rest.
        dev_share: share of train that becomes dev.
        seed: for the draw.
    """
    same = first_rows(digests)
    groups = _joined(same, caption_images, text_groups(captions))
    return split_rows(given, digests, test_share=test_share, dev_share=dev_share, seed=seed, groups=groups)


def shared_captions(
    splits: Mapping[str, Int64[np.ndarray, " n"]],
    captions: Sequence[str],
    caption_images: Int64[np.ndarray, " C"],
) -> dict[str, int]:
    """How many distinct captions (normalised) of a split stand in another too, by such as "test in train"."""
    groups = text_groups(captions)
    of_split = {name: np.unique(groups[np.isin(caption_images, rows)]) for name, rows in splits.items()}
    return {
        f"{right} in {left}": len(np.intersect1d(of_split[left], of_split[right], assume_unique=True))
        for left, right in combinations(splits, 2)
    }


def first_rows(digests: UInt8[np.ndarray, "N 16"]) -> Int64[np.ndarray, " N"]:
    """Of each image, the first row with the same digest."""
    first: dict[bytes, int] = {}
    rows = (first.setdefault(digest.tobytes(), row) for row, digest in enumerate(digests))
    return np.fromiter(rows, dtype=np.int64, count=len(digests))


def _joined(
    same: Int64[np.ndarray, " N"],
    caption_images: Int64[np.ndarray, " C"],
    caption_groups: Int64[np.ndarray, " C"],
) -> Int64[np.ndarray, " N"]:
    """Group of each image: those with the same pixels or caption, and all that a chain of such joins."""
    num_images, rows = len(same), np.arange(len(same), dtype=np.int64)
    left = np.concatenate([rows, caption_images])
    right = np.concatenate([same, num_images + caption_groups])
    return merge_rows(left, right, num_images + len(caption_groups))[:num_images]

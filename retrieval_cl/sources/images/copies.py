"""Copies in a set of images, pixel for pixel or near, and which of them leak from train to test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.images import Images
from retrieval_cl.sources.images.pixels import digest

READ_ROWS = 2048


@final
@dataclass(frozen=True, eq=False)
class Copies:
    """Which images are the same.

    Attributes:
        same: of each image, the first one with the same pixels: itself, if there is none before.
        near: pairs of rows that look the same without having the same pixels.
        groups: item id of each image: the first row of all that are joined by copies, or by copies of copies.
    """

    same: Int64[np.ndarray, " N"]
    near: Int64[np.ndarray, "P 2"]
    groups: Int64[np.ndarray, " N"]

    def leaks(
        self, train: Int64[np.ndarray, " T"], held_out: Int64[np.ndarray, " H"]
    ) -> Int64[np.ndarray, "L 2"]:
        """Held-out rows that are copies of a train row, near or not: (the first such row, held-out row)."""
        return _shared(self.groups, train, held_out)

    def counts(self, splits: Mapping[str, Int64[np.ndarray, " n"]]) -> dict[str, int]:
        """How many images are copies: of an earlier one in each split, and of one in another split.

        Keys are such as "train: same pixels", "train: near copies too" and "test in train: same pixels".
        """
        found: dict[str, int] = {}
        measures = {"same pixels": self.same, "near copies too": self.groups}
        for name, rows in splits.items():
            for measure, item in measures.items():
                found[f"{name}: {measure}"] = len(rows) - len(np.unique(item[rows]))
        for left, right in _split_pairs(splits):
            for measure, item in measures.items():
                found[f"{right} in {left}: {measure}"] = len(_shared(item, splits[left], splits[right]))
        return found


def find_copies(images: Images, *, near: Int64[np.ndarray, "P 2"] | None = None) -> Copies:
    """Joins images with the same pixels, and those of `near`, into items.

    Args:
        images: of all splits.
        near: pairs of rows that are taken for the same, as `near_by_hash` or `near_by_vectors` finds them.
    """
    same = same_pixels(images)
    given = np.zeros((0, 2), dtype=np.int64) if near is None else near
    pairs = given[same[given[:, 0]] != same[given[:, 1]]]
    own = np.stack([np.arange(len(same), dtype=np.int64), same], axis=1)
    return Copies(same, pairs, _components(np.concatenate([own, pairs]), len(same)))


def join_items(groups: Int64[np.ndarray, " N"], pairs: Int64[np.ndarray, "P 2"]) -> Int64[np.ndarray, " N"]:
    """Item ids after both rows of each pair, and all that share an item with either, have become one item.

    Args:
        groups: item id of each row.
        pairs: of rows.

    Returns:
        Of what is joined, the least id.
    """
    items, place = np.unique(groups, return_inverse=True)
    joined: Int64[np.ndarray, " N"] = items[_components(place[pairs], len(items))][place]
    return joined


def same_pixels(images: Images) -> Int64[np.ndarray, " N"]:
    """Of each image, the first row with the same pixels."""
    first: dict[bytes, int] = {}
    same = np.empty(len(images), dtype=np.int64)
    for start in range(0, len(images), READ_ROWS):
        rows = np.arange(start, min(start + READ_ROWS, len(images)), dtype=np.int64)
        pixels = images.take(rows).permute(0, 2, 3, 1).cpu().numpy()
        for row, image in zip(rows.tolist(), pixels, strict=True):
            same[row] = first.setdefault(digest(image).tobytes(), row)
    return same


def _shared(
    items: Int64[np.ndarray, " N"], train: Int64[np.ndarray, " T"], held_out: Int64[np.ndarray, " H"]
) -> Int64[np.ndarray, "L 2"]:
    distinct, first = np.unique(items[train], return_index=True)
    if not len(distinct):
        return np.zeros((0, 2), dtype=np.int64)
    place = np.minimum(np.searchsorted(distinct, items[held_out]), len(distinct) - 1)
    found = distinct[place] == items[held_out]
    return np.stack([train[first[place[found]]], held_out[found]], axis=1).astype(np.int64)


def _split_pairs(splits: Mapping[str, Int64[np.ndarray, " n"]]) -> list[tuple[str, str]]:
    names = list(splits)
    return [(left, right) for i, left in enumerate(names) for right in names[i + 1 :]]


def _components(pairs: Int64[np.ndarray, "P 2"], num_rows: int) -> Int64[np.ndarray, " N"]:
    """The first row of each row's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(num_rows, num_rows))
    label = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)

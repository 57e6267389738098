"""Looks for copies in a set of images, within its splits and between them, and reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.core.files import write_json
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.copies_report import CopiesReport, write_copies_report
from retrieval_cl.reporting.facts import Provenance
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.image_neighbours import picture_of
from retrieval_cl.runs.reports import provenance
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.copies import Copies, find_copies, same_pixels
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.sources.images.near import THUMB_SIDE, near_by_hash
from retrieval_cl.sources.images.placed import PickedImages

JSON, PAGE = "copies.json", "copies.html"
MAX_SHOWN = 60
# Below this side in pixels, thumbnails of unlike images are alike.
LEAST_SIDE = 32
_SAME, _NEAR = ": same pixels", ": near copies too"
Pairs = Int64[np.ndarray, "P 2"]


@final
@dataclass(frozen=True, eq=False)
class FoundCopies:
    """What a search for copies leaves.

    Attributes:
        folder: with copies.json and copies.html.
        data: what was searched.
        copies: what was found.
        splits: as the data names them: train with the images that `load_images` leaves out of it.
    """

    folder: Path
    data: ImageData
    copies: Copies
    splits: Mapping[str, Int64[np.ndarray, " n"]]

    @cached_property
    def within(self) -> dict[str, tuple[int, int]]:
        """Split -> images that are copies of an earlier one of it: with the same pixels, near copies too."""
        counts = self.copies.counts(self.splits)
        return {name: (counts[name + _SAME], counts[name + _NEAR]) for name in self.splits}

    @cached_property
    def between(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(split, other) -> images of `other` that are copies of one of `split`, counted likewise."""
        counts = self.copies.counts(self.splits)
        return {
            (split, other): (counts[f"{other} in {split}{_SAME}"], counts[f"{other} in {split}{_NEAR}"])
            for split, other in combinations(self.splits, 2)
        }

    @property
    def warning(self) -> str:
        """What to think of near copies here; empty where they can be told."""
        height, width = self.data.images.size
        if min(height, width) >= LEAST_SIDE:
            return ""
        return (
            f"images of {height}x{width} are so small that unlike ones look alike: do not trust near copies"
        )

    def same_pairs(self) -> Pairs:
        """(first, copy) within a split, with the same pixels; every copy once."""
        return np.concatenate([_pairs(self.copies.same, rows) for rows in self.splits.values()])

    def near_pairs(self) -> Pairs:
        """(first, copy) within a split that look alike, or are joined by images that do; every copy once."""
        pairs = np.concatenate([_pairs(self.copies.groups, rows) for rows in self.splits.values()])
        near: Pairs = pairs[~np.isin(pairs[:, 1], self.same_pairs()[:, 1])]
        return near

    def leaks(self) -> dict[tuple[str, str], Pairs]:
        """(split, other) -> (first row of `split`, row of `other`) for each copy."""
        return {
            (split, other): self.copies.leaks(self.splits[split], self.splits[other])
            for split, other in combinations(self.splits, 2)
        }

    def text(self) -> str:
        """The counts, for a terminal."""
        rows = [(f"in {split}", *numbers) for split, numbers in self.within.items()]
        rows += [
            (f"of {other}, in {split} as well", *numbers) for (split, other), numbers in self.between.items()
        ]
        width = max(len(place) for place, _, _ in rows)
        lines = [f"{place.ljust(width)}  {same:>11,}  {near:>15,}" for place, same, near in rows]
        warned = [self.warning] if self.warning else []
        return "\n".join([f"{'copies'.ljust(width)}  same pixels  near copies too", *lines, *warned])


def report_copies(
    config: ImageSourceConfig,
    *,
    output: Path,
    max_distance: int,
    min_correlation: float,
    command: str = "retrieval-cl copies",
    say: Say = lambda line: None,
) -> FoundCopies:
    """Counts copies of images, pixel for pixel and near, within splits and between them.

    Args:
        config: the images.
        output: folder for copies.json and copies.html.
        max_distance: bits of 64 in which the difference hashes of near copies may differ.
        min_correlation: of their thumbnails.
        command: what the user typed, for the page.
        say: gets a line now and then.

    Raises:
        InputError: the data is missing or broken.
    """
    data = load_images(config)
    say(f"{data.name}: {len(data.images):,} images")
    near = _near(data, max_distance=max_distance, min_correlation=min_correlation)
    found = FoundCopies(output, data, find_copies(data.images, near=near), _as_given(data))
    how = (
        f"at most {max_distance} of 64 bits of the difference hash differ, and thumbnails of {THUMB_SIDE} x "
        f"{THUMB_SIDE} correlate by at least {min_correlation:g}"
    )
    write_json(output / JSON, {**_facts(found), "near_copies_are": how, "command": command})
    write_copies_report(output / PAGE, _page(found, provenance(command, settings={"near copies": how})))
    return found


def _near(data: ImageData, *, max_distance: int, min_correlation: float) -> Pairs:
    # Of images with the same pixels one is enough: all pairs of a thousand of them are half a million.
    distinct = np.unique(same_pixels(data.images))
    pairs = near_by_hash(
        PickedImages(data.images, distinct),
        max_distance=max_distance,
        min_correlation=min_correlation,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )
    near: Pairs = distinct[pairs]
    return near


def _as_given(data: ImageData) -> dict[str, Int64[np.ndarray, " n"]]:
    """The splits with the train images that were left out because a held-out one has the same pixels."""
    used = np.concatenate([*data.splits.values(), np.zeros(0, dtype=np.int64)])
    left_out = np.setdiff1d(np.arange(len(data.images), dtype=np.int64), used)
    train = data.splits.get("train", np.zeros(0, dtype=np.int64))
    whole = np.union1d(train, left_out)
    return ({"train": whole} if len(whole) else {}) | {k: v for k, v in data.splits.items() if k != "train"}


def _pairs(items: Int64[np.ndarray, " N"], rows: Int64[np.ndarray, " n"]) -> Pairs:
    """(first of its item, row) for every row that is not the first."""
    _, first, inverse = np.unique(items[rows], return_index=True, return_inverse=True)
    pairs = np.stack([rows[first[inverse]], rows], axis=1)
    again: Pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return again


def _facts(found: FoundCopies) -> dict[str, Any]:
    """All that was found, as JSON values; rows by their ids."""
    ids, same = found.data.ids, found.copies.same

    def told(pairs: Pairs) -> list[list[str]]:
        return [[ids[first], ids[copy]] for first, copy in pairs.tolist()]

    return {
        "data": found.data.name,
        "num_images": len(found.data.images),
        "splits": {name: len(rows) for name, rows in found.splits.items()},
        "left_out_of_train": found.data.made_by.get("leaked_train_images", 0),
        "within": {
            name: {"same_pixels": numbers[0], "near_too": numbers[1]}
            for name, numbers in found.within.items()
        },
        "between": [
            {
                "split": split,
                "other": other,
                "same_pixels": found.between[split, other][0],
                "near_too": found.between[split, other][1],
                "pairs": [
                    [*pair, bool(same[first] == same[copy])]
                    for pair, (first, copy) in zip(told(pairs), pairs.tolist(), strict=True)
                ],
            }
            for (split, other), pairs in found.leaks().items()
        ],
        "same_pixels": told(found.same_pairs()),
        "near": told(found.near_pairs()),
    }


def _page(found: FoundCopies, made: Provenance) -> CopiesReport:
    kinds = {
        "leaks": np.concatenate([*found.leaks().values(), np.zeros((0, 2), dtype=np.int64)]),
        "near": found.near_pairs(),
        "same": found.same_pairs(),
    }
    split_of = {row: name for name, rows in found.splits.items() for row in rows.tolist()}

    def tile(row: int) -> Tile:
        split, name = split_of[row], found.data.ids[row]
        caption = name if name.startswith(f"{split}/") else f"{split}: {name}"
        return Tile(picture_of(found.data.images, row), caption)

    sheets = {
        kind: [[tile(first), tile(copy)] for first, copy in pairs[:MAX_SHOWN].tolist()]
        for kind, pairs in kinds.items()
    }
    height, width = found.data.images.size
    left_out = found.data.made_by.get("leaked_train_images", 0)
    images = {
        "images": f"{len(found.data.images):,} of {height} x {width} pixels",
        "splits": ", ".join(f"{len(rows):,} {name}" for name, rows in found.splits.items()),
    }
    if left_out:
        images["left out of train"] = f"{left_out:,} by training: a held-out image has the same pixels"
    return CopiesReport(
        name=found.data.name,
        num_images=len(found.data.images),
        within=found.within,
        between=found.between,
        provenance=made,
        **sheets,
        numbers={kind: len(pairs) for kind, pairs in kinds.items()},
        images=images,
        warning=found.warning,
    )

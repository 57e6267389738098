"""Images before they are decoded: bytes, files or pixels by row, with their labels and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

# What one image is before decoding; None where the data has a row but no image.
Item: TypeAlias = bytes | Path | UInt8[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _ 3"] | None


@runtime_checkable
class Encoded(Protocol):
    """Images numbered from 0, as the source keeps them."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each image, distinct within the source: id and what a message calls it."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`; a path is read by whoever decodes it."""


@final
@dataclass(frozen=True, eq=False)
class ListedItems:
    """Images listed one by one: files of a folder, or small arrays."""

    names: Sequence[str]
    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        return list(self.items[start:stop])


@final
@dataclass(frozen=True, eq=False)
class PickedItems:
    """Some images of others, under names of their own.

    Attributes:
        names: of the chosen images.
        encoded: all of them.
        rows: image i is `encoded` row `rows[i]`.
    """

    names: Sequence[str]
    encoded: Encoded
    rows: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        chosen = self.rows[start:stop]
        # Neighbours are read at once.
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        return [item for run in runs if len(run) for item in self.encoded.read(int(run[0]), int(run[-1]) + 1)]


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Images of one split and one file, with their labels.

    Attributes:
        encoded: the images.
        splits: split of each image; None where the data names none.
        labels: class of each image, a place in `classes`; None where there are none.
        classes: names of the classes.
        stamp: changes when the source changes (names, sizes and times of its files).
    """

    encoded: Encoded
    splits: Sequence[str] | None
    labels: Int64[np.ndarray, " N"] | None
    classes: tuple[str, ...]
    stamp: str


@final
@dataclass(frozen=True, eq=False)
class JoinedParts:
    """The images of several parts, one part after the other."""

    parts: Sequence[Part]
    names: Sequence[str] = field(init=False)
    bounds: Int64[np.ndarray, " P1"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", [name for part in self.parts for name in part.encoded.names])
        sizes = [len(part.encoded) for part in self.parts]
        object.__setattr__(self, "bounds", np.cumsum([0, *sizes], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        items: list[Item] = []
        place = int(np.searchsorted(self.bounds, start, side="right")) - 1
        while len(items) < stop - start:
            first = start + len(items) - int(self.bounds[place])
            last = min(stop - int(self.bounds[place]), len(self.parts[place].encoded))
            items += self.parts[place].encoded.read(first, last)
            place += 1
        return items

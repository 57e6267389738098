"""Splits of images: those the data names, shares drawn where it names none, and no copy in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from retrieval_cl.core.errors import InputError

SPLITS = ("train", "dev", "test")
DEFAULT_TEST_SHARE = 0.3


def split_rows(
    given: Sequence[str],
    digests: UInt8[np.ndarray, "N 16"],
    *,
    test_share: float | None,
    dev_share: float,
    seed: int,
    groups: Int64[np.ndarray, " N"] | None = None,
) -> tuple[dict[str, Int64[np.ndarray, " n"]], int]:
    """Rows of each split, ascending, and how many train images were left out as copies of held-out ones.

    Which images are drawn depends on `seed`, the split and their pixels alone, not on their order or names,
    so copies are drawn together. Shares count distinct images of train as the data gives it. Groups are drawn
    whole: as many as the share has room for, at least one.

    Args:
        given: split of each image in the data.
        digests: of the pixels of each image.
        test_share: share of train that becomes test; None: 0.3 where there is no test.
        dev_share: share of train that becomes dev.
        seed: for the draw.
        groups: images that are not drawn apart; equal pixels are of one group. None: nothing else joins them.

    Raises:
        InputError: a share is asked for a split that is there, or train has too few images.
    """
    splits, codes = np.array(given, dtype="<U5"), _codes(digests)
    groups = codes if groups is None else groups
    held_out = np.isin(codes, codes[splits != "train"]) & (splits == "train")
    splits[held_out] = ""
    if (held_out.any() or dev_share or test_share) and not (splits == "train").any():
        raise InputError("no train image is left that is not, pixel for pixel, a dev or test image as well")
    shares = {
        "test": _share("test", test_share, default=DEFAULT_TEST_SHARE, splits=splits),
        "dev": _share("dev", dev_share or None, default=0.0, splits=splits),
    }
    num_train = len(np.unique(codes[splits == "train"]))
    num_groups = len(np.unique(groups[splits == "train"]))
    for name, share in shares.items():
        train, count = splits == "train", _count(share, num_train)
        # Groups for train, and for dev where it comes after test.
        leave = 1 + (name == "test" and shares["dev"] > 0)
        salt = f"{seed} {name}"
        splits[_drawn(codes, groups, digests, among=train, count=count, leave=leave, salt=salt)] = name
    if any(shares.values()) and not (splits == "train").any():
        raise InputError(
            f"{num_train} distinct train images{_apart(num_train, num_groups)} are too few for a test_share "
            f"of {shares['test']} and a dev_share of {shares['dev']}"
        )
    rows = {name: np.flatnonzero(splits == name).astype(np.int64) for name in SPLITS}
    return {name: found for name, found in rows.items() if len(found)}, int(held_out.sum())


def _share(name: str, wanted: float | None, *, default: float, splits: np.ndarray) -> float:
    if not (splits == name).any():
        return (default if (splits == "train").any() else 0.0) if wanted is None else wanted
    if wanted is not None and wanted > 0:
        found = ", ".join(split for split in SPLITS if (splits == split).any())
        raise InputError(
            f"source.{name}_share {wanted} has no effect: the data has splits {found}; it takes from "
            f"train where there is no {name}. Remove it"
        )
    return 0.0


def _count(share: float, num_images: int) -> int:
    return max(1, round(share * num_images)) if share else 0


def _apart(num_images: int, num_groups: int) -> str:
    return "" if num_groups == num_images else f" in {num_groups} groups that are not drawn apart"


def _drawn(
    codes: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " N"],
    digests: UInt8[np.ndarray, "N 16"],
    *,
    among: Bool[np.ndarray, " N"],
    count: int,
    leave: int,
    salt: str,
) -> Bool[np.ndarray, " N"]:
    if not count or not among.any():
        return np.zeros(len(codes), dtype=bool)
    _, first = np.unique(codes[among], return_index=True)
    # Codes ascend as the digests do: the first of a group is its least digest, whatever the order of rows.
    drawn, least, sizes = np.unique(groups[among][first], return_index=True, return_counts=True)
    keys = np.array([_key(salt, row.tobytes()) for row in digests[among][first][least]], dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    return among & np.isin(groups, drawn[order[_with_room(sizes[order], count, leave=leave)]])


def _with_room(sizes: Int64[np.ndarray, " G"], count: int, *, leave: int) -> list[int]:
    """Groups, taken in order, whose sizes add up to at most `count`; the smallest, if none is so small.

    `leave` groups are left, unless there are no more.
    """
    most = max(1, len(sizes) - leave)
    taken: list[int] = []
    left = count
    for group, size in enumerate(sizes.tolist()):
        if size <= left:
            taken.append(group)
            left -= size
        if not left or len(taken) == most:
            break
    return taken or [int(sizes.argmin())]


def _key(salt: str, content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=salt.encode()).digest())


def _codes(digests: UInt8[np.ndarray, "N 16"]) -> Int64[np.ndarray, " N"]:
    """A number for each image, equal where the pixels are."""
    # As byte strings they sort at once. Trailing zeros are cut off, which tells as much at a fixed length.
    strings = np.ascontiguousarray(digests).view("S16").ravel()
    return np.unique(strings, return_inverse=True)[1].astype(np.int64, copy=False)

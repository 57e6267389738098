"""The index of a tar shard: where each member lies, by sample, and whether the shard was cut off."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

from retrieval_cl.core.errors import InputError


@final
@dataclass(frozen=True)
class Member:
    """One file in a shard: bytes `start` to `stop - 1`; its number counts from 1."""

    number: int
    start: int
    stop: int


@final
@dataclass(frozen=True, eq=False)
class ShardIndex:
    """What lies in a shard.

    Attributes:
        samples: key -> suffix in lower case (".jpg") -> member. Files that share a name up to the first dot
            are one sample.
        lost: the shard itself, where it is cut off: name -> reason.
    """

    samples: dict[str, dict[str, Member]]
    lost: dict[str, str]


def read_index(shard: Path) -> ShardIndex:
    """Lists the members of a tar file by its headers; their contents are passed over.

    Of a shard that is cut off, the samples before the cut are read.

    Raises:
        InputError: a member stands twice.
    """
    samples: dict[str, dict[str, Member]] = {}
    number, cut = 0, ""
    try:
        # "r:" takes no compressed file.
        with tarfile.open(shard, "r:") as tar:
            while (found := tar.next()) is not None:
                number += 1
                if found.isfile():
                    _add(samples, found, number, shard)
            cut = _missing_end(shard, tar.offset)
    except tarfile.TarError as error:
        cut = str(error)
    # The last member may be cut off itself, before the archive's end is missed.
    _drop_beyond(samples, shard.stat().st_size)
    lost = {shard.name: f"cut off or no tar file after {number} members: {cut}"} if cut else {}
    return ShardIndex({key: members for key, members in samples.items() if members}, lost)


def _missing_end(shard: Path, offset: int) -> str:
    """A whole archive ends in blocks of zeros; without, tarfile takes any end for the end."""
    with shard.open("rb") as stream:
        stream.seek(offset)
        block = stream.read(tarfile.BLOCKSIZE)
    return "" if len(block) == tarfile.BLOCKSIZE and not any(block) else "no end of archive"


def _drop_beyond(samples: dict[str, dict[str, Member]], size: int) -> None:
    for members in samples.values():
        for suffix in [suffix for suffix, member in members.items() if member.stop > size]:
            del members[suffix]


def _add(samples: dict[str, dict[str, Member]], found: tarfile.TarInfo, number: int, shard: Path) -> None:
    folder, slash, file = found.name.removeprefix("./").rpartition("/")
    key, dot, suffix = file.partition(".")
    # Hidden files and files without a suffix belong to no sample.
    if not key or not dot:
        return
    members = samples.setdefault(f"{folder}{slash}{key}", {})
    if f".{suffix.lower()}" in members:
        raise InputError(f"{shard}, member {number}: '{found.name}' stands twice")
    members[f".{suffix.lower()}"] = Member(number, found.offset_data, found.offset_data + found.size)

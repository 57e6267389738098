"""Images with captions in tar shards, as webdataset writes them: read at their places, by an index."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import split_name
from retrieval_cl.sources.image_text.gather import TextColumns, gather
from retrieval_cl.sources.image_text.parts import CaptionedPart, captioned
from retrieval_cl.sources.image_text.shards import Member, read_index
from retrieval_cl.sources.images.encoded import Item, ListedItems, Part
from retrieval_cl.sources.images.folder import SUFFIXES, file_stamp
from retrieval_cl.sources.images.split_files import SPLITS
from retrieval_cl.sources.lines import Records

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
TEXT, JSON = ".txt", ".json"


def read_captioned_tars(path: str, columns: TextColumns) -> list[CaptionedPart]:
    """Reads shards: images `key.jpg` (or another kind) with their captions in `key.txt` or `key.json`.

    A caption is the text of `key.txt`, or stands in fields of `key.json`: those of `columns`, where they are
    set or there is no text. A field of `key.json` may also name split and class. Shards whose names all begin
    with a split ("train-000.tar", "val-000.tar") give that.

    Args:
        path: a shard, a folder of shards, or a pattern such as "shards/{000..010}.tar".
        columns: fields of the JSON members.

    Raises:
        InputError: a shard is missing, compressed or no tar file, or a member is broken.
    """
    shards = find_shards(path)
    splits = [split_name(re.split(r"[.\-_]", shard.name)[0]) for shard in shards]
    named = all(split in SPLITS for split in splits)
    return [
        _part(shard, columns, split if named else None) for shard, split in zip(shards, splits, strict=True)
    ]


def find_shards(path: str) -> list[Path]:
    """The shards that a path names, in order.

    Raises:
        InputError: one is missing or compressed, or there is none.
    """
    found = [Path(name).expanduser() for name in _expand(path)]
    if len(found) == 1 and found[0].is_dir():
        files = sorted(file for file in found[0].iterdir() if not file.name.startswith("."))
        found = [file for file in files if file.suffix == ".tar" or ".tar." in file.name]
        if not found:
            raise InputError(f"{path}: no .tar file here")
    for shard in found:
        if not shard.is_file():
            raise InputError(f"{shard}: no such file; expected a shard (.tar)")
        if shard.suffix in COMPRESSED:
            raise InputError(
                f"{shard}: compressed, so no image can be read at its place; unpack the shard to a .tar file "
                "(images in it are compressed already)"
            )
    return found


@final
@dataclass(frozen=True, eq=False)
class TarImages:
    """Members of a tar file: image i is bytes `starts[i]` to `stops[i] - 1` of it. Threads may share it."""

    names: Sequence[str]
    path: Path
    starts: Int64[np.ndarray, " N"]
    stops: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        items: list[Item] = []
        with self.path.open("rb") as stream:
            bounds = np.stack([self.starts[start:stop], self.stops[start:stop]], axis=1)
            for low, high in bounds.tolist():
                stream.seek(low)
                items.append(stream.read(high - low))
        return items


def _expand(path: str) -> list[str]:
    """The names that a pattern such as a{08..10}b stands for: a08b, a09b, a10b."""
    found = BRACES.search(path)
    if found is None:
        return [path]
    first, last = found.groups()
    if int(first) > int(last):
        raise InputError(f"source.path '{path}': {found.group()} counts down; write {{{last}..{first}}}")
    rests = _expand(path[found.end() :])
    numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return [path[: found.start()] + number + rest for number in numbers for rest in rests]


def _part(shard: Path, columns: TextColumns, split: str | None) -> CaptionedPart:
    index = read_index(shard)
    lost = dict(index.lost)
    rows, images = [], []
    for key, members in index.samples.items():
        name = f"{shard.stem}/{key}"
        image = next((member for suffix, member in members.items() if suffix in SUFFIXES), None)
        if image is None:
            lost[name] = f"no image beside {', '.join(members)}"
        elif TEXT not in members and JSON not in members:
            lost[name] = f"no {TEXT} or {JSON} beside {next(iter(members))}"
        else:
            rows.append((name, members))
            images.append(image)
    if not rows:
        return CaptionedPart(Part(ListedItems([], []), None, None, (), file_stamp(shard)), [], lost, {})
    names = [name for name, _ in rows]
    with shard.open("rb") as stream:
        table = [_row(stream, shard, members, wanted=columns.captions) for _, members in rows]
    numbers = [image.number for image in images]
    gathered = gather(Records(str(shard), table, numbers, unit="member"), names, _columns(columns, table))
    encoded = TarImages(
        names,
        shard,
        np.array([image.start for image in images], dtype=np.int64),
        np.array([image.stop for image in images], dtype=np.int64),
    )
    part = captioned(
        gathered,
        encoded,
        rows=gathered.rows,
        split=split,
        class_names=None,
        stamp=file_stamp(shard),
        where=str(shard),
    )
    return CaptionedPart(part.part, part.captions, {**part.lost, **lost}, part.counts)


def _row(
    stream: Any, shard: Path, members: dict[str, Member], *, wanted: tuple[str, ...] | None
) -> dict[str, Any]:
    """The texts of a sample as named values; that of a .txt member is "txt" where no field is wanted."""
    row: dict[str, Any] = {}
    if JSON in members:
        try:
            row = json.loads(_text(stream, shard, members[JSON]))
        except json.JSONDecodeError as error:
            raise InputError(f"{shard}, member {members[JSON].number}: broken JSON: {error.msg}") from None
        if type(row) is not dict:
            raise InputError(f"{shard}, member {members[JSON].number}: expected a JSON object {{...}}")
    if TEXT in members and wanted is None:
        row = {**row, "txt": _text(stream, shard, members[TEXT])}
    return row


def _text(stream: Any, shard: Path, member: Member) -> str:
    stream.seek(member.start)
    data: bytes = stream.read(member.stop - member.start)
    try:
        return data.decode("utf8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shard}, member {member.number}: not UTF-8 (byte 0x{data[error.start]:02x})"
        ) from None


def _columns(columns: TextColumns, table: Sequence[dict[str, Any]]) -> TextColumns:
    """Where captions stand: in the .txt members, if there are any and no field is set."""
    if columns.captions is None and any("txt" in row for row in table):
        return TextColumns(("txt",), columns.label, columns.split)
    return columns

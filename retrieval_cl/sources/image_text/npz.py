"""Images of an .npz file whose captions stand in a file of JSON lines beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import id_at
from retrieval_cl.sources.image_text.gather import TextColumns, gather
from retrieval_cl.sources.image_text.parts import CaptionedPart, captioned
from retrieval_cl.sources.images.packed import read_npz
from retrieval_cl.sources.lines import Records, read_jsonl

IDS, INDEX = ("id", "image"), "index"


def read_captioned_npz(path: Path, columns: TextColumns, *, captions: str | None) -> list[CaptionedPart]:
    """Reads images and captions: line i belongs to image i, or to that of its field `index` (-1: to none).

    Args:
        path: of the .npz file, or of a folder with no other.
        columns: of the captions.
        captions: their file, from the folder of the images; None: the only one there.

    Raises:
        InputError: a file is missing or damaged, there are several, or a line names no image (file and line).
    """
    images = _only(path, "*.npz", key="source.path") if path.is_dir() else path
    file = images.parent / captions if captions else _only(images.parent, "*.jsonl*", key="source.captions")
    part = read_npz(images)[0]
    records = read_jsonl(file)
    rows = _image_rows(records, len(part.encoded), images)
    names = _names(records, rows, part.encoded.names)
    gathered = gather(records, names, columns)
    chosen = [int(rows[row]) for row in gathered.rows]
    found = captioned(
        gathered,
        part.encoded,
        rows=chosen,
        split=None,
        class_names=None,
        stamp=part.stamp,
        where=f"{file}, '{gathered.label_column}'",
    )
    without = sum(name is None for name in names)
    counts = {**found.counts, **({"rows_without_image": without} if without else {})}
    labelled = found.part
    if gathered.labels is None and part.labels is not None:
        labels = part.labels[np.array(chosen, dtype=np.int64)]
        labelled = dataclasses.replace(labelled, labels=labels, classes=part.classes)
    return [CaptionedPart(labelled, found.captions, found.lost, counts)]


def _only(folder: Path, pattern: str, *, key: str) -> Path:
    found = sorted(file for file in folder.glob(pattern) if not file.name.startswith("."))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(f"{folder}: expected one file {pattern}, found {names}; name it in {key}")
    return found[0]


def _image_rows(records: Records, num_images: int, images: Path) -> list[int]:
    """The image of each line, -1 for none."""
    if not any(INDEX in row for row in records.rows):
        if len(records) != num_images:
            raise InputError(
                f"{records.source}: {len(records)} lines for the {num_images} images of {images.name}; "
                f"without a field '{INDEX}', line i belongs to image i"
            )
        return list(range(num_images))
    rows = []
    for row in range(len(records)):
        index = records.rows[row].get(INDEX)
        if type(index) is not int or not -1 <= index < num_images:
            raise InputError(
                f"{records.place(row)}: {INDEX} {index!r:.40}; valid are -1 (no image) to {num_images - 1}, "
                f"the last image of {images.name}"
            )
        rows.append(index)
    return rows


def _names(records: Records, rows: Sequence[int], given: Sequence[str]) -> list[str | None]:
    """Name of the image of each line; None where there is no image."""
    column = next((name for name in IDS if any(name in row for row in records.rows)), None)
    index_of: dict[str, int] = {}
    names: list[str | None] = []
    for row, index in enumerate(rows):
        if index == -1:
            names.append(None)
            continue
        name = given[index] if column is None else id_at(records, row, [column])
        if index_of.setdefault(name, index) != index:
            raise InputError(
                f"{records.place(row)}: '{name}' is image {index}, but image {index_of[name]} before"
            )
        names.append(name)
    return names

"""The text side of a source: captions, split and class of each image, gathered from the rows that name it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import checked_string, choose_column, split_name
from retrieval_cl.sources.images.split_files import SPLITS, valid_splits
from retrieval_cl.sources.lines import Records

CAPTIONS = ("caption", "captions", "text", "texts", "title")
LABELS, SPLIT, LEFT_OUT = ("label", "labels", "class"), "split", "none"
Label: TypeAlias = str | int | None


@final
@dataclass(frozen=True)
class TextColumns:
    """Names of the columns; None takes the usual ones."""

    captions: tuple[str, ...] | None = None
    label: str | None = None
    split: str | None = None


@final
@dataclass(frozen=True, eq=False)
class Gathered:
    """Images with a caption, in the order in which they are first named.

    Attributes:
        names: of the images.
        rows: the row that first names each.
        captions: of each image: white space normalised, distinct, at least one.
        splits: of each image; None where no row names one.
        labels: of each image, None where it is not known; None where there is no column of labels.
        label_column: where labels stand.
        lost: images that no row gives a caption: name -> reason.
        counts: what else was left out, by kind.
    """

    names: list[str]
    rows: list[int]
    captions: list[list[str]]
    splits: list[str] | None
    labels: list[Label] | None
    label_column: str | None
    lost: dict[str, str]
    counts: dict[str, int]


def gather(records: Records, names: Sequence[str | None], columns: TextColumns) -> Gathered:
    """Joins the rows of each image.

    Args:
        records: one caption or several a row.
        names: the image that each row names; None: none, so the row is passed over.
        columns: where captions, splits and labels stand.

    Raises:
        InputError: a column is missing, a caption is no string, a split is unknown, or two rows give an image
            different splits or classes (file and line).
    """
    found = list(dict.fromkeys(name for row in records.rows for name in row))
    captions, label, split = _choose(found, columns, records.source)
    first: dict[str, int] = {}
    texts: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    split_of: dict[str, str | None] = {}
    label_of: dict[str, Label] = {}
    for row, name in enumerate(names):
        if name is None:
            continue
        row_split = None if split is None else _split_at(records, row, split)
        row_label = None if label is None else _label_at(records, row, label)
        if name in first:
            _refuse_other(records, row, first[name], name, "split", split_of[name], row_split)
            _refuse_other(records, row, first[name], name, "class", label_of[name], row_label)
        else:
            first[name], split_of[name], label_of[name] = row, row_split, row_label
        seen = texts.setdefault(name, {})
        for text in _texts_at(records, row, captions):
            counts["empty_captions"] += not text
            counts["repeated_captions"] += text in seen
            if text:
                seen[text] = None
    named = [name for name in first if split_of[name] != LEFT_OUT]
    kept = [name for name in named if texts[name]]
    counts["images_without_split"] = len(first) - len(named)
    return Gathered(
        names=kept,
        rows=[first[name] for name in kept],
        captions=[list(texts[name]) for name in kept],
        splits=None if split is None else [str(split_of[name]) for name in kept],
        labels=None if label is None else [label_of[name] for name in kept],
        label_column=label,
        lost={name: "no caption" for name in named if not texts[name]},
        counts={kind: count for kind, count in sorted(counts.items()) if count},
    )


def _choose(
    found: Sequence[str], columns: TextColumns, source: str
) -> tuple[list[str], str | None, str | None]:
    key = "source.caption_columns"
    wanted: Sequence[str | None] = columns.captions or (None,)
    captions = [choose_column(found, CAPTIONS, wanted=name, source=source, key=key) for name in wanted]
    label = columns.label or next((name for name in LABELS if name in found), None)
    if label is not None and label not in found:
        # "attributes.2" is a place within a column.
        top = label.partition(".")[0]
        choose_column(found, (), wanted=top, source=source, key="source.label_column")
    split = columns.split or (SPLIT if SPLIT in found else None)
    if split is not None:
        choose_column(found, (), wanted=split, source=source, key="source.split_column")
    return captions, label, split


def _texts_at(records: Records, row: int, columns: Sequence[str]) -> list[str]:
    """The captions of a row, each run of white space one blank; "" where one is empty."""
    texts = []
    for column in columns:
        value = records.rows[row].get(column)
        for text in value if type(value) is list else [value]:
            texts.append("" if text is None else " ".join(checked_string(text, records, row, column).split()))
    return texts


def _split_at(records: Records, row: int, column: str) -> str:
    value = records.rows[row].get(column)
    name = (
        LEFT_OUT if value is None or value == "" else split_name(checked_string(value, records, row, column))
    )
    if name not in (*SPLITS, LEFT_OUT):
        raise InputError(
            f"{records.place(row)}: unknown split '{value}'; valid are {valid_splits()}, and {LEFT_OUT} for "
            "rows that are left out"
        )
    return name


def _label_at(records: Records, row: int, column: str) -> Label:
    value = records.rows[row]
    label: Any = value[column] if column in value else _within(value, column.split("."))
    if label is None or label == "":
        return None
    if type(label) not in (str, int):
        raise InputError(
            f"{records.place(row)}: class in '{column}' must be a string or whole number, got "
            f"{type(label).__name__} {label!r:.40}"
        )
    return str(label) if isinstance(label, str) else int(label)


def _within(value: Any, places: Sequence[str]) -> Any:
    """The value at a place such as attributes, 2: keys of objects, numbers in lists; None if not there."""
    for place in places:
        if isinstance(value, dict):
            value = value.get(place)
        elif isinstance(value, list) and place.isdecimal() and int(place) < len(value):
            value = value[int(place)]
        else:
            return None
    return value


def _refuse_other(
    records: Records, row: int, first: int, name: str, what: str, before: Label, now: Label
) -> None:
    if before != now:
        raise InputError(
            f"{records.place(row)}: image '{name}' has {what} '{now}', but '{before}' in {records.unit} "
            f"{records.numbers[first]}"
        )

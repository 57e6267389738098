"""Texts to index or embed that come without queries: a table with a column of texts, or plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import id_at, numbered, string_at
from retrieval_cl.sources.lines import Records, read_lines
from retrieval_cl.sources.records import Texts
from retrieval_cl.sources.tables import READERS, read_table, table_suffix

TEXT_COLUMNS = ("text", "passage", "query", "anchor")
ID_COLUMNS = ("_id", "id")


def read_texts(path: Path) -> Texts:
    """Reads `_id` (or `id`), `title` and `text` of each row of a table; or each line of a .txt file.

    Rows without an id are named by their line.

    Raises:
        InputError: the file is missing, broken or of an unknown kind, or a text is empty (file and line).
    """
    if table_suffix(path) == ".txt":
        lines = list(read_lines(path))
        rows = [{"_id": str(number), "text": text} for number, text in lines]
        return _texts(Records(str(path), rows, [number for number, _ in lines]))
    if table_suffix(path) not in READERS:
        valid = ", ".join([*READERS, ".txt"])
        raise InputError(f"{path}: unknown kind of file; valid are {valid} (.gz too, but for Parquet)")
    return _texts(read_table(path))


def given_texts(texts: Sequence[str]) -> Texts:
    """Texts from a command line, named by their place from 1. Raises InputError where one is empty."""
    for place, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(f"text {place} is empty")
    return Texts([str(place) for place in range(1, len(texts) + 1)], list(texts))


def _texts(records: Records) -> Texts:
    ids, texts, titles = [], [], []
    for row in range(len(records)):
        values = records.rows[row]
        column = next((name for name in TEXT_COLUMNS if name in values), None)
        if column is None:
            raise InputError(
                f"{records.place(row)}: no column {' or '.join(repr(name) for name in TEXT_COLUMNS)}; "
                f"columns are {', '.join(values) or 'none'}"
            )
        text = string_at(records, row, column)
        title = string_at(records, row, "title").strip() if values.get("title") else ""
        blank = not text.strip()
        if blank and not title:
            raise InputError(f"{records.place(row)}: empty text in column '{column}'")
        has_id = any(values.get(name) is not None for name in ID_COLUMNS)
        ids.append(id_at(records, row, ID_COLUMNS) if has_id else str(records.numbers[row]))
        texts.append(title if blank else text)
        titles.append("" if blank else title)
    if not ids:
        raise InputError(f"{records.source}: no rows")
    numbered(ids, records)
    return Texts(ids, texts, titles)

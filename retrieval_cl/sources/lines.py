"""Reads whole text files (plain or .gz, UTF-8) and JSON lines; what is broken is named by file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_cl.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Records:
    """Rows of named values, as they stand in one file or table.

    Attributes:
        source: where they come from, as the reader knows it (a file name).
        rows: one mapping from column to value a row.
        numbers: the number of each row at its source, counted from 1.
        unit: what `numbers` counts ("line" or "row").
    """

    source: str
    rows: list[dict[str, Any]]
    numbers: Sequence[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Names a row for a message, e.g. `train.jsonl, line 7`."""
        return f"{self.source}, {self.unit} {self.numbers[row]}"


def read_jsonl(path: Path) -> Records:
    """Reads a file with one JSON object a line; blank lines are skipped.

    Raises:
        InputError: the file is missing, no UTF-8, or a line is no JSON object (file and line).
    """
    rows, numbers = [], []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: broken JSON: {error.msg} at column {error.colno}"
            ) from None
        if type(row) is not dict:
            raise InputError(f"{path}, line {number}: expected a JSON object {{...}}, got {line[:40]!r}")
        rows.append(row)
        numbers.append(number)
    return Records(str(path), rows, numbers)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number (from 1) and text of each line that is not blank; a final carriage return is cut."""
    # Not splitlines(): it also cuts at U+2028 and others, which may stand unescaped inside a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line and not line.isspace():
            yield number, line.removesuffix("\r")


def read_text(path: Path) -> str:
    """Reads a UTF-8 file whole, unpacked if its name ends in .gz; a byte order mark is cut off.

    Raises:
        InputError: the file is missing or unreadable, broken gzip, or no UTF-8 (file and line).
    """
    data = _read_bytes(path)
    try:
        return data.decode("utf8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None

"""Reads one table of rows with named columns: JSON lines, CSV, TSV (each also .gz) or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.lines import Records, read_jsonl, read_text

# The csv module refuses longer fields; its own limit of 131,072 characters is less than a long passage.
LONGEST_FIELD = 1 << 30


def read_table(path: Path) -> Records:
    """Reads a table by the suffix of its name.

    Raises:
        InputError: the file is missing or broken (file and line), or of a kind we do not read.
    """
    suffix = table_suffix(path)
    if suffix not in READERS:
        raise InputError(
            f"{path}: unknown kind of file; valid are {', '.join(READERS)} (.gz too, but for Parquet)"
        )
    return READERS[suffix](path)


def table_suffix(path: Path) -> str:
    """The suffix that tells the kind of file: that before .gz, if it ends so."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def read_csv(path: Path) -> Records:
    """Reads comma-separated rows; the first line names the columns."""
    return _read_separated(path, ",")


def read_tsv(path: Path) -> Records:
    """Reads tab-separated rows; the first line names the columns."""
    return _read_separated(path, "\t")


def read_parquet(path: Path) -> Records:
    """Reads a Parquet file; its rows are counted from 1.

    Raises:
        InputError: the file is missing or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}") from None
    return Records(str(path), rows, range(1, len(rows) + 1), unit="row")


def _read_separated(path: Path, delimiter: str) -> Records:
    stream = io.StringIO(read_text(path), newline="")
    # strict: an unclosed quote is an error, where the default would swallow the lines after it.
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    rows, numbers, names, start = [], [], None, 1
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        for cells in reader:
            # A quoted cell may run over several lines: a row is named by its first.
            number, start = start, reader.line_num + 1
            if not cells:
                continue
            if names is None:
                names = _header(cells, path)
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} columns, "
                    f"the header has {len(names)}: {', '.join(names)}"
                )
            rows.append(dict(zip(names, cells, strict=True)))
            numbers.append(number)
    except csv.Error as error:
        raise InputError(f"{path}, line {start}: broken quoting or cell: {error}") from None
    finally:
        csv.field_size_limit(limit)
    return Records(str(path), rows, numbers)


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"{path}, line 1: column names must differ and not be empty: {', '.join(names)}")
    return names


READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}

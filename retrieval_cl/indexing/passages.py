"""Ids, titles and texts of an index in one Parquet file, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow
import pyarrow.parquet

from retrieval_cl.core.errors import InputError

# Rows that one read fetches: small enough for a search that shows ten hits, large enough to compress.
_GROUP_ROWS = 2048
_COLUMNS = ("id", "title", "text")


@dataclass(frozen=True)
class Passage:
    """One passage as it is shown; `title` is "" where there is none."""

    id: str
    title: str
    text: str


def write_passages(path: Path, *, ids: Sequence[str], titles: Sequence[str], texts: Sequence[str]) -> None:
    """Writes one row a passage, in order."""
    columns = [pyarrow.array(column, pyarrow.string()) for column in (ids, titles, texts)]
    table = pyarrow.table(dict(zip(_COLUMNS, columns, strict=True)))
    pyarrow.parquet.write_table(table, path, row_group_size=_GROUP_ROWS, compression="zstd")


class PassageFile:
    """Random access by row number; the groups of rows read last stay in memory."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InputError(f"{path}: no readable Parquet file: {error}") from None
        if tuple(self._file.schema_arrow.names) != _COLUMNS:
            raise InputError(
                f"{path}: columns {self._file.schema_arrow.names}; expected {', '.join(_COLUMNS)}"
            )
        self._group = lru_cache(maxsize=64)(self._read_group)

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._file.metadata.num_rows)

    def take(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of the given rows, in that order; -1 is no row and must not come here."""
        return [self._take_one(int(row)) for row in rows]

    def row_of(self, name: str) -> int | None:
        """The row with this id; None where there is none."""
        return self._rows.get(name)

    @cached_property
    def _rows(self) -> dict[str, int]:
        names = self._file.read(columns=["id"]).column(0).to_pylist()
        return {name: row for row, name in enumerate(names)}

    def _take_one(self, row: int) -> Passage:
        assert 0 <= row < len(self), row
        group, place = divmod(row, _GROUP_ROWS)
        values = self._group(group).slice(place, 1).to_pylist()[0]
        return Passage(**values)

    def _read_group(self, group: int) -> pyarrow.Table:
        return self._file.read_row_group(group, columns=list(_COLUMNS))

"""Rows of texts, labels and scores as JSONL or Parquet, written in chunks under a temporary name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file

Columns = dict[str, list[Any]]
Write = Callable[[Path, pa.Schema, Iterable[Columns]], int]


def writer_of(path: Path) -> Write:
    """Writes chunks of columns to a path with that ending; returns the number of rows.

    Raises:
        InputError: the path has another ending.
    """
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise InputError(f"{path}: cannot write '{path.suffix}'; the endings are {', '.join(writers)}")
    return writers[path.suffix]


def _write_jsonl(path: Path, schema: pa.Schema, chunks: Iterable[Columns]) -> int:
    written = 0
    with new_file(path) as part, part.open("w", encoding="utf8") as stream:
        for chunk in chunks:
            for values in zip(*(chunk[name] for name in schema.names), strict=True):
                stream.write(
                    json.dumps(dict(zip(schema.names, values, strict=True)), ensure_ascii=False) + "\n"
                )
                written += 1
    return written


def _write_parquet(path: Path, schema: pa.Schema, chunks: Iterable[Columns]) -> int:
    written = 0
    with new_file(path) as part, pq.ParquetWriter(part, schema) as stream:
        for chunk in chunks:
            rows = pa.Table.from_pydict(chunk, schema=schema)
            stream.write_table(rows)
            written += rows.num_rows
    return written

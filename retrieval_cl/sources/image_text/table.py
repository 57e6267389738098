"""Images with captions of a table: CSV, TSV, JSON lines or Parquet, with paths or encoded images."""

from __future__ import annotations

from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import checked_string, choose_column
from retrieval_cl.sources.image_text.gather import TextColumns, gather
from retrieval_cl.sources.image_text.parts import CaptionedPart, captioned
from retrieval_cl.sources.images import tables as image_tables
from retrieval_cl.sources.images.encoded import ListedItems
from retrieval_cl.sources.images.folder import file_stamp, files_stamp
from retrieval_cl.sources.images.split_files import split_files
from retrieval_cl.sources.lines import Records
from retrieval_cl.sources.tables import read_table

IMAGE = (*image_tables.IMAGE, "path", "filepath")
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
KEY = "source.image_column"


def read_captioned_table(
    path: Path, columns: TextColumns, *, image: str | None, image_root: Path | None, stream: bool
) -> list[CaptionedPart]:
    """Reads a table, or each of a folder where they are named by split (train.csv, test.csv).

    Rows that name the same path are one image with the captions of all. Each row of a Parquet file with
    encoded images is an image of its own.

    Args:
        path: of the file or folder.
        columns: of the captions.
        image: the column of images; None takes the usual one.
        image_root: what paths are relative to; None: the folder of the file.
        stream: whether images are to be read one by one, anew for each batch.

    Raises:
        InputError: a file or column is missing or of a wrong kind, or a row is broken (file and line).
    """
    parts = []
    for split, file in split_files(path, suffixes=SUFFIXES):
        column = _encoded_column(file, image) if file.suffix == ".parquet" else None
        if column is not None and stream:
            raise InputError(
                f"{file}: encoded images of Parquet lie in large groups, which no batch can read one by one; "
                "set source.stream to false and source.cache_dir to a folder"
            )
        if column is not None:
            parts.append(_with_encoded(file, split, columns, column))
        else:
            parts.append(_with_paths(read_table(file), split, columns, image, image_root or file.parent))
    return parts


def _with_paths(
    records: Records, split: str | None, columns: TextColumns, image: str | None, root: Path
) -> CaptionedPart:
    found = list(dict.fromkeys(name for row in records.rows for name in row))
    column = choose_column(found, IMAGE, wanted=image, source=records.source, key=KEY)
    names: list[str | None] = []
    lost = {}
    for row in range(len(records)):
        value = records.rows[row].get(column)
        name = "" if value is None else checked_string(value, records, row, column).strip()
        names.append(name or None)
        if not name:
            lost[records.place(row)] = "no image in this row"
    gathered = gather(records, names, columns)
    files = [root / name for name in gathered.names]
    part = captioned(
        gathered,
        ListedItems(gathered.names, files),
        rows=range(len(files)),
        split=split,
        class_names=None,
        stamp=files_stamp(gathered.names, files),
        where=records.source,
    )
    return CaptionedPart(part.part, part.captions, {**part.lost, **lost}, part.counts)


def _encoded_column(path: Path, image: str | None) -> str | None:
    """The column of images of a Parquet file, if it holds images and not paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}") from None
    column = choose_column(schema.names, IMAGE, wanted=image, source=str(path), key=KEY)
    kind = schema.field(column).type
    return None if pa.types.is_string(kind) or pa.types.is_large_string(kind) else column


def _with_encoded(path: Path, split: str | None, columns: TextColumns, column: str) -> CaptionedPart:
    import pyarrow.parquet as pq

    encoded = image_tables.parquet_images(path, column)
    schema = pq.read_schema(path)
    table = pq.read_table(path, columns=[name for name in schema.names if name != column]).to_pylist()
    records = Records(str(path), table, range(1, len(table) + 1), unit="row")
    gathered = gather(records, encoded.names, columns)
    label = gathered.label_column
    return captioned(
        gathered,
        encoded,
        rows=gathered.rows,
        split=split,
        class_names=None if label is None else image_tables.class_names(schema.metadata or {}, label),
        stamp=f"{file_stamp(path)} {column}",
        where=str(path),
    )

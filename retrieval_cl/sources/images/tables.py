"""Images in a column: of Parquet files, or of data sets that `datasets` loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import choose_column, split_name
from retrieval_cl.sources.hf import load_splits
from retrieval_cl.sources.images.encoded import Item, Part
from retrieval_cl.sources.images.folder import file_stamp
from retrieval_cl.sources.images.labels import as_classes
from retrieval_cl.sources.images.split_files import SPLITS, split_files, valid_splits

IMAGE, LABEL, SPLIT = ("image", "img", "jpeg", "bytes"), ("label", "labels", "class"), "split"


@final
@dataclass(frozen=True)
class Columns:
    """Names of the columns; None takes the usual ones."""

    image: str | None = None
    label: str | None = None
    split: str | None = None


def read_parquet(path: Path, columns: Columns) -> list[Part]:
    """Reads a Parquet file, or each of a folder where they are named by split; images are read when decoded.

    The image column holds encoded bytes, or `{bytes, path}` as `datasets` writes them.

    Raises:
        InputError: a file or column is missing or of a wrong kind.
    """
    return [_parquet_part(file, split, columns) for split, file in split_files(path, suffixes=(".parquet",))]


def read_dataset(path: str, columns: Columns, *, subset: str | None, revision: str | None) -> list[Part]:
    """Reads a data set with an Image feature: an id on the Hub or a folder saved by `datasets`.

    Raises:
        InputError: it cannot be loaded, or a column is missing or of a wrong kind.
    """
    found = load_splits(
        path, subset, revision, instead="kind 'image_parquet' or 'image_folder' with local files"
    )
    return [_dataset_part(rows, f"{path}, split {split}", split, columns) for split, rows in found.items()]


@final
@dataclass(frozen=True, eq=False)
class ParquetImages:
    """A column of a Parquet file; one row group is held at a time."""

    names: Sequence[str]
    path: Path
    column: str

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        items: list[Item] = []
        for group, (first, last) in enumerate(pairwise(self._bounds)):
            low, high = max(start, first), min(stop, last)
            if low < high:
                items += [
                    _item(value) for value in self._group(group).slice(low - first, high - low).to_pylist()
                ]
        return items

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path)

    @cached_property
    def _bounds(self) -> list[int]:
        metadata = self._file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return [0, *np.cumsum(counts).tolist()]

    @cached_property
    def _held(self) -> dict[int, Any]:
        return {}

    def _group(self, group: int) -> Any:
        if group not in self._held:
            self._held.clear()
            self._held[group] = self._file.read_row_group(group, columns=[self.column]).column(0)
        return self._held[group]


@final
@dataclass(frozen=True, eq=False)
class DatasetImages:
    """A column of a `datasets.Dataset`, its images not decoded."""

    names: Sequence[str]
    rows: Any
    column: str

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> list[Item]:
        """The images of rows `start` to `stop - 1`."""
        return [_item(value) for value in self.rows[start:stop][self.column]]


def parquet_images(path: Path, image: str) -> ParquetImages:
    """The encoded images in a column of a Parquet file.

    Raises:
        InputError: the column is of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pq.read_schema(path).field(image).type
    is_struct = pa.types.is_struct(kind) and any(
        kind.field(i).name == "bytes" for i in range(kind.num_fields)
    )
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or is_struct):
        raise InputError(
            f"{path}: column '{image}' holds {kind}; valid are encoded images: binary, or bytes and path"
        )
    names = [f"{path.stem}/{row}" for row in range(pq.read_metadata(path).num_rows)]
    return ParquetImages(names, path, image)


def dataset_images(rows: Any, image: str, *, split: str, where: str) -> DatasetImages:
    """The encoded images in a column of a `datasets.Dataset`.

    Raises:
        InputError: the column is of another kind.
    """
    import datasets

    kind = rows.features[image]
    if isinstance(kind, datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))
    elif getattr(kind, "dtype", None) not in ("binary", "large_binary"):
        raise InputError(f"{where}: column '{image}' holds {kind}; valid are an Image feature or binary")
    names = [f"{split}/{row}" for row in range(len(rows))]
    return DatasetImages(names, rows.select_columns([image]), image)


def class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Names of the classes that `datasets` wrote beside a column of numbers in a Parquet file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, json.JSONDecodeError):
        return None
    names = features.get(label, {}).get("names")
    return list(names) if names else None


def _parquet_part(path: Path, split: str | None, columns: Columns) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        found = list(schema.names)
        image, label, split_column = _choose(found, columns, str(path))
        encoded = parquet_images(path, image)
        wanted = list(dict.fromkeys(name for name in (label, split_column) if name is not None))
        beside = pq.read_table(path, columns=wanted).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no readable Parquet file: {str(error).splitlines()[0]}") from None
    names = None if label is None else class_names(schema.metadata or {}, label)
    labels, classes = (None, ()) if label is None else as_classes(beside[label], names=names, where=str(path))
    splits = None if split is None else [split] * len(encoded)
    if split_column is not None:
        splits = row_splits(beside[split_column], where=f"{path}, column '{split_column}'")
    return Part(encoded, splits, labels, classes, f"{file_stamp(path)} {image}")


def _dataset_part(rows: Any, where: str, split: str, columns: Columns) -> Part:
    image, label, split_column = _choose(rows.column_names, columns, where)
    encoded = dataset_images(rows, image, split=split, where=where)
    labels: Int64[np.ndarray, " N"] | None = None
    classes: tuple[str, ...] = ()
    if label is not None:
        names = getattr(rows.features[label], "names", None)
        labels, classes = as_classes(list(rows[label]), names=names, where=where)
    splits: Sequence[str] | None = None
    if split_column is not None:
        splits = row_splits(list(rows[split_column]), where=f"{where}, column '{split_column}'")
    elif split_name(split) in SPLITS:
        splits = [split_name(split)] * len(rows)
    else:
        raise InputError(f"{where}: unknown split; valid are {valid_splits()}")
    return Part(encoded, splits, labels, classes, f"{rows._fingerprint} {image}")


def row_splits(values: Sequence[object], *, where: str) -> list[str]:
    """The split each row names. Raises InputError for a name that is none."""
    names = [split_name(str(value)) for value in values]
    for row, name in enumerate(names):
        if name not in SPLITS:
            raise InputError(
                f"{where}, row {row + 1}: unknown split '{values[row]}'; valid are {valid_splits()}"
            )
    return names


def _choose(found: Sequence[str], columns: Columns, where: str) -> tuple[str, str | None, str | None]:
    image = choose_column(found, IMAGE, wanted=columns.image, source=where, key="source.image_column")
    label: str | None = next((name for name in LABEL if name in found), None)
    if columns.label is not None:
        label = choose_column(found, (), wanted=columns.label, source=where, key="source.label_column")
    split: str | None = SPLIT if SPLIT in found else None
    if columns.split is not None:
        split = choose_column(found, (), wanted=columns.split, source=where, key="source.split_column")
    return image, label, split


def _item(value: Any) -> Item:
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        return None if value.get("path") is None else Path(value["path"])
    return None if value is None else bytes(value)

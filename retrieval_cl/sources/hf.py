"""Pairs and triplets from a Hugging Face data set: an id on the Hub or a folder saved by `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import split_name
from retrieval_cl.sources.config import ColumnNames
from retrieval_cl.sources.lines import Records
from retrieval_cl.sources.pairs import join_pairs
from retrieval_cl.sources.records import RetrievalData

INSTEAD = "kind 'pairs' with a local file"


def read_huggingface(
    path: str, *, columns: ColumnNames | None = None, subset: str | None = None, revision: str | None = None
) -> RetrievalData:
    """Reads a data set with columns anchor, positive and negatives; "validation" is the split "dev".

    Args:
        path: an id on the Hub, a folder written by `save_to_disk`, or one of files that `load_dataset` reads.
        columns: names of the columns; None takes the usual ones.
        subset: the configuration, where the data set has several.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: the Hub cannot be reached, there is no such data set, or a row is broken (split and row).
    """
    tables = []
    for split, rows in load_splits(path, subset, revision, instead=INSTEAD).items():
        table = rows.to_list()
        records = Records(f"{path}, split {split}", table, range(1, len(table) + 1), unit="row")
        tables.append((split_name(split), records))
    name = path.rstrip("/").split("/")[-1]
    return join_pairs(tables, name=name, columns=columns or ColumnNames(), source="huggingface")


def load_splits(path: str, subset: str | None, revision: str | None, *, instead: str) -> Mapping[str, Any]:
    """The splits of a data set, each a `datasets.Dataset`; `instead` is what a reader offline can do.

    Raises:
        InputError: the Hub cannot be reached, or there is no such data set.
    """
    import datasets

    try:
        if any((Path(path) / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path, subset, revision=revision)
    except ConnectionError as error:
        raise InputError(
            f"data set '{path}': the Hugging Face Hub cannot be reached, no copy is cached ({_line(error)}); "
            f"set source.path to a folder written by save_to_disk, or use {instead}"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"data set '{path}' cannot be loaded: {_line(error)}") from None
    return found if isinstance(found, datasets.DatasetDict) else {"train": found}


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""Pairs and triplets (anchor, positive, negatives) as retrieval data: equal texts become one row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.checks import (
    SPLIT_ALIASES,
    checked_string,
    choose_column,
    split_name,
    text_at,
)
from retrieval_cl.sources.config import ColumnNames
from retrieval_cl.sources.lines import Records
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts
from retrieval_cl.sources.tables import READERS, read_table, table_suffix

ANCHOR = ("anchor", "query")
POSITIVE = ("positive", "passage")
NEGATIVE = re.compile(r"negative(_\d+)?")
SPLIT = "split"
SPLITS = ("train", "dev", "test")


def read_pairs(path: Path, *, columns: ColumnNames | None = None) -> RetrievalData:
    """Reads pairs or triplets from a file, or from a folder of files named by split (train.jsonl ...).

    Anchors that are equal become one query with several positives, equal passages one passage. A column
    `split` decides the split of each row; without one it is the name of the file in a folder, else "train".

    Args:
        path: .jsonl, .csv or .tsv (also .gz) or .parquet; or a folder of those.
        columns: names of the columns; None takes the usual ones.

    Raises:
        InputError: a file or column is missing, or a row is broken: an anchor without a positive, an empty
            text (file and line).
    """
    tables = [(split, read_table(file)) for split, file in _split_files(path)]
    return join_pairs(tables, name=path.resolve().name.split(".")[0], columns=columns or ColumnNames())


def join_pairs(
    tables: Sequence[tuple[str, Records]], *, name: str, columns: ColumnNames, source: str = "pairs"
) -> RetrievalData:
    """Joins tables of pairs into one data set.

    Args:
        tables: split and rows of each table.
        name: of the data set.
        columns: names of the columns.
        source: kind of source, for the manifest.

    Raises:
        InputError: as `read_pairs`.
    """
    joined = _Joined()
    for split, records in tables:
        _add_table(joined, records, split=split, columns=columns)
    if not joined.judged:
        raise InputError(f"{tables[0][1].source if tables else name}: no rows")
    positives = {(query, passage) for pairs in joined.judged.values() for query, passage in pairs}
    negatives = [pair for pair in joined.negatives if pair not in positives]
    return RetrievalData(
        name=name,
        passages=Texts(_content_ids(joined.passages), list(joined.passages)),
        queries=Texts(_content_ids(joined.queries), list(joined.queries)),
        splits={split: _qrels(joined.judged[split]) for split in _split_order(joined.judged)},
        given_negatives=_relation(negatives, len(joined.queries)) if negatives else None,
        # A negative that is also a positive of its anchor is no negative; how many there were is told.
        made_by={"source": source, "negatives_that_are_positives": len(joined.negatives) - len(negatives)},
    )


@dataclass(eq=False)
class _Joined:
    """Distinct texts with their rows, and the pairs of rows read so far."""

    queries: dict[str, int] = field(default_factory=dict)
    passages: dict[str, int] = field(default_factory=dict)
    judged: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    negatives: list[tuple[int, int]] = field(default_factory=list)


def _add_table(joined: _Joined, records: Records, *, split: str, columns: ColumnNames) -> None:
    found = list(dict.fromkeys(name for row in records.rows for name in row))
    if not found:
        return
    anchor = choose_column(
        found, ANCHOR, wanted=columns.anchor, source=records.source, key="source.columns.anchor"
    )
    positive = choose_column(
        found, POSITIVE, wanted=columns.positive, source=records.source, key="source.columns.positive"
    )
    negatives = _negative_columns(found, columns, records.source)
    split_column = _split_column(found, columns, records.source)
    for row in range(len(records)):
        query = joined.queries.setdefault(text_at(records, row, anchor), len(joined.queries))
        right = list(_texts_at(records, row, positive))
        if not right:
            raise InputError(
                f"{records.place(row)}: the anchor has no positive; column '{positive}' is empty"
            )
        row_split = _split_at(records, row, split_column) if split_column else split
        pairs = joined.judged.setdefault(row_split, [])
        pairs.extend((query, joined.passages.setdefault(text, len(joined.passages))) for text in right)
        for column in negatives:
            for text in _texts_at(records, row, column):
                joined.negatives.append((query, joined.passages.setdefault(text, len(joined.passages))))


def _texts_at(records: Records, row: int, column: str) -> Iterator[str]:
    # One string or a list of strings; an absent, null or empty cell holds none.
    value = records.rows[row].get(column)
    if value is None or value == "":
        return
    for text in value if type(value) is list else [value]:
        if checked_string(text, records, row, column).strip() == "":
            raise InputError(f"{records.place(row)}: empty text in column '{column}'")
        yield text


def _negative_columns(found: Sequence[str], columns: ColumnNames, source: str) -> list[str]:
    if columns.negatives is None:
        return [name for name in found if NEGATIVE.fullmatch(name)]
    key = "source.columns.negatives"
    return [choose_column(found, (), wanted=name, source=source, key=key) for name in columns.negatives]


def _split_column(found: Sequence[str], columns: ColumnNames, source: str) -> str | None:
    if columns.split is None:
        return SPLIT if SPLIT in found else None
    return choose_column(found, (), wanted=columns.split, source=source, key="source.columns.split")


def _split_at(records: Records, row: int, column: str) -> str:
    name = text_at(records, row, column)
    # A misspelt split would leave its rows out of everything, in silence.
    if split_name(name) not in SPLITS:
        raise InputError(f"{records.place(row)}: unknown split '{name}'; valid are {_valid_splits()}")
    return split_name(name)


def _split_files(path: Path) -> list[tuple[str, Path]]:
    if not path.is_dir():
        return [("train", path)]
    files = [file for file in sorted(path.iterdir()) if table_suffix(file) in READERS]
    # "train.jsonl" and a shard such as "train-00000-of-00002.parquet" both belong to "train".
    splits = [split_name(re.split(r"[.\-]", file.name)[0]) for file in files]
    for split, file in zip(splits, files, strict=True):
        if split not in SPLITS:
            raise InputError(
                f"{file}: the name of a file in a folder of pairs starts with its split: {_valid_splits()}"
            )
    if not files:
        raise InputError(
            f"{path}: no file of pairs here; expected e.g. train.jsonl (or {', '.join(READERS)})"
        )
    return list(zip(splits, files, strict=True))


def _valid_splits() -> str:
    return ", ".join([*SPLITS, *SPLIT_ALIASES])


def _split_order(splits: dict[str, list[tuple[int, int]]]) -> list[str]:
    return [*(split for split in SPLITS if split in splits), *sorted(set(splits) - set(SPLITS))]


def _relation(pairs: list[tuple[int, int]], num_rows: int) -> Ragged:
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Ragged.from_pairs(rows[:, 0], rows[:, 1], num_rows)


def _qrels(pairs: list[tuple[int, int]]) -> Qrels:
    rows = np.unique(np.array(pairs, dtype=np.int64), axis=0)
    return Qrels(rows[:, 0].copy(), rows[:, 1].copy(), np.ones(len(rows), dtype=np.int64))


def _content_ids(texts: dict[str, int]) -> list[str]:
    return [hashlib.blake2b(text.encode("utf8"), digest_size=10).hexdigest() for text in texts]

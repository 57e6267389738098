"""Judgements and other id pairs in text files: BEIR and TREC qrels, `equal.tsv`, `negatives.tsv`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.lines import read_lines
from retrieval_cl.sources.records import Qrels

MAX_GRADE = 1_000_000


def read_qrels(path: Path, *, queries: Mapping[str, int], passages: Mapping[str, int]) -> Qrels:
    """Reads graded judgements: `query passage grade` (BEIR) or `query 0 passage grade` (TREC).

    The first line is a header only if its last column is no number and its ids are unknown, so no judgement
    is lost. Columns are separated by tabs, or by blanks in a line without tabs.

    Args:
        path: the file, plain or .gz.
        queries: query id -> row.
        passages: passage id -> row.

    Raises:
        InputError: a line with other columns, an unknown id, a grade that is no whole number, or two grades
            for one pair (file and line); or a file without a relevant pair.
    """
    numbers, query_rows, passage_rows, grades, width = [], [], [], [], 0
    for number, line in read_lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        query, passage, grade = columns[0], columns[-2] if len(columns) > 1 else "", _grade(columns[-1])
        if not width:
            width = _width(columns, path, number)
            if grade is None and query not in queries and passage not in passages:
                continue
        if len(columns) != width:
            raise InputError(f"{path}, line {number}: {len(columns)} columns, the lines above have {width}")
        if grade is None:
            raise InputError(
                f"{path}, line {number}: grade '{columns[-1]}' is no whole number up to {MAX_GRADE}"
            )
        query_rows.append(_row(query, queries, "query", path, number))
        passage_rows.append(_row(passage, passages, "passage", path, number))
        grades.append(grade)
        numbers.append(number)
    if not any(grade >= 1 for grade in grades):
        raise InputError(f"{path}: no relevant pair (grade 1 or more) in {len(grades)} judgements")
    return _sorted(
        path, *(np.array(column, dtype=np.int64) for column in (query_rows, passage_rows, grades, numbers))
    )


def read_id_pairs(
    path: Path, *, left: Mapping[str, int], right: Mapping[str, int], kinds: tuple[str, str]
) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
    """Reads two ids a line, tab-separated, without a header; returns their rows.

    Args:
        path: the file.
        left: first id -> row.
        right: second id -> row.
        kinds: what the ids name, for messages.

    Raises:
        InputError: a line without exactly two columns, or an unknown id (file and line).
    """
    pairs = []
    for number, line in read_lines(path):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(
                f"{path}, line {number}: {len(columns)} columns, expected two ids and a tab between"
            )
        first = _row(columns[0], left, kinds[0], path, number)
        pairs.append((first, _row(columns[1], right, kinds[1], path, number)))
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _width(columns: list[str], path: Path, number: int) -> int:
    if len(columns) not in (3, 4):
        raise InputError(
            f"{path}, line {number}: {len(columns)} columns, "
            "expected 3 (query passage grade) or 4 (query 0 passage grade)"
        )
    return len(columns)


def _grade(text: str) -> int | None:
    # Some sets write grades as 1.0; nan, inf and 0.5 are no grades.
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) <= MAX_GRADE else None


def _row(name: str, rows: Mapping[str, int], kind: str, path: Path, number: int) -> int:
    row = rows.get(name)
    if row is None:
        raise InputError(f"{path}, line {number}: unknown {kind} id '{name}'")
    return row


def _sorted(
    path: Path,
    queries: Int64[np.ndarray, " J"],
    passages: Int64[np.ndarray, " J"],
    grades: Int64[np.ndarray, " J"],
    numbers: Int64[np.ndarray, " J"],
) -> Qrels:
    order = np.lexsort((numbers, passages, queries))
    queries, passages, grades, numbers = queries[order], passages[order], grades[order], numbers[order]
    again = np.zeros(len(queries), dtype=bool)
    again[1:] = (queries[1:] == queries[:-1]) & (passages[1:] == passages[:-1])
    clash = np.flatnonzero(again[1:] & (grades[1:] != grades[:-1]))
    if len(clash):
        first = int(clash[0])
        raise InputError(
            f"{path}, line {numbers[first + 1]}: grade {grades[first + 1]} for a pair "
            f"that has grade {grades[first]} in line {numbers[first]}"
        )
    return Qrels(queries[~again], passages[~again], grades[~again])

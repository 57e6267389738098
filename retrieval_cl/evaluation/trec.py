"""TREC runs and qrels: the files trec_eval and its kin read, written without losing a tie or making one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.evaluation.lines import numbered_lines

_LARGEST = float(np.finfo(np.float32).max)
_RUN = "query Q0 passage rank score tag"
_QRELS = "query 0 passage grade"


def write_run(
    path: Path, hits: Hits, *, query_ids: Sequence[str], passage_ids: Sequence[str], tag: str = "retrieval-cl"
) -> None:
    """Writes one line a hit; nine significant digits give back every float32.

    Raises:
        InputError: an id or the tag is empty or holds white space, which the format cannot say.
    """
    _check_words([tag], path=path)
    _check_words(query_ids, path=path)
    with new_file(path) as part, part.open("w", encoding="utf8") as stream:
        for query, scores, rows in zip(query_ids, hits.scores.tolist(), hits.rows.tolist(), strict=True):
            found = [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0]
            _check_words([passage_ids[row] for _, row in found], path=path)
            for rank, (score, row) in enumerate(found, start=1):
                stream.write(f"{query} Q0 {passage_ids[row]} {rank} {score:.9g} {tag}\n")


def read_run(
    path: Path, *, query_ids: Sequence[str], passage_ids: Sequence[str], k: int | None = None
) -> Hits:
    """Reads a run; ranks are ignored, as trec_eval ignores them.

    Args:
        path: the file.
        query_ids: row i of the hits is query i; queries the run lacks have no hits.
        passage_ids: row numbers of the passages.
        k: hits kept a query; None keeps as many as the query with most has.

    Returns:
        Ordered by score descending, ties by row ascending; -1 and -inf fill up.

    Raises:
        InputError: a line of other shape, a score that is no finite number, an unknown id, or a passage that
            stands twice for a query; with file and line.
    """
    pairs, texts, numbers = _read_pairs(path, shape=_RUN, query_ids=query_ids, passage_ids=passage_ids)
    scores = [
        _finite(text, where=f"{path}, line {number}") for text, number in zip(texts, numbers, strict=True)
    ]
    return _ordered(pairs, np.array(scores, dtype=np.float32), num_queries=len(query_ids), k=k)


def write_qrels(
    path: Path, relevant: Ragged, grades: Ragged, *, query_ids: Sequence[str], passage_ids: Sequence[str]
) -> None:
    """Writes one line a judgement. Raises InputError where an id holds white space."""
    _check_words(query_ids, path=path)
    _check_words([passage_ids[row] for row in relevant.values.tolist()], path=path)
    with new_file(path) as part, part.open("w", encoding="utf8") as stream:
        for query, row, grade in zip(
            relevant.rows.tolist(), relevant.values.tolist(), grades.values.tolist(), strict=True
        ):
            stream.write(f"{query_ids[query]} 0 {passage_ids[row]} {grade}\n")


def read_qrels(path: Path, *, query_ids: Sequence[str], passage_ids: Sequence[str]) -> tuple[Ragged, Ragged]:
    """Reads judgements: the judged passage rows of each query, ascending, and the grade of each.

    Raises:
        InputError: a line of other shape, a grade that is no integer, an unknown id, or a pair that stands
            twice; with file and line.
    """
    pairs, texts, numbers = _read_pairs(path, shape=_QRELS, query_ids=query_ids, passage_ids=passage_ids)
    grades = [
        _integer(text, where=f"{path}, line {number}") for text, number in zip(texts, numbers, strict=True)
    ]
    relevant = Ragged.from_pairs(pairs[:, 0], pairs[:, 1], len(query_ids))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return relevant, Ragged(relevant.offsets, np.array(grades, dtype=np.int64)[order])


def _read_pairs(
    path: Path, *, shape: str, query_ids: Sequence[str], passage_ids: Sequence[str]
) -> tuple[Int64[np.ndarray, "L 2"], list[str], list[int]]:
    """(query, passage) rows of each line, the text of its value, and its line number."""
    query_rows, passage_rows = _numbers(query_ids), _numbers(passage_ids)
    names = shape.split()
    value_column = next(column for column, name in enumerate(names) if name in ("score", "grade"))
    pairs: dict[tuple[int, int], None] = {}
    texts, numbers = [], []
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != len(names):
            raise InputError(f"{path}, line {number}: {len(fields)} fields; expected '{shape}'")
        pair = (
            _look_up(query_rows, fields[0], where=f"{path}, line {number}: query"),
            _look_up(passage_rows, fields[2], where=f"{path}, line {number}: passage"),
        )
        if pair in pairs:
            raise InputError(
                f"{path}, line {number}: passage '{fields[2]}' stands twice for query '{fields[0]}'"
            )
        pairs[pair] = None
        texts.append(fields[value_column])
        numbers.append(number)
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2), texts, numbers


def _ordered(
    pairs: Int64[np.ndarray, "L 2"], scores: Float32[np.ndarray, " L"], *, num_queries: int, k: int | None
) -> Hits:
    order = np.lexsort((pairs[:, 1], -scores, pairs[:, 0]))
    queries, rows, scores = pairs[order, 0], pairs[order, 1], scores[order]
    ranks = np.arange(len(queries)) - np.searchsorted(queries, queries)
    width = int(ranks.max(initial=-1)) + 1 if k is None else k
    kept = ranks < width
    hits = Hits(
        np.full((num_queries, width), -np.inf, dtype=np.float32),
        np.full((num_queries, width), -1, dtype=np.int64),
    )
    hits.scores[queries[kept], ranks[kept]] = scores[kept]
    hits.rows[queries[kept], ranks[kept]] = rows[kept]
    return hits


def _check_words(words: Sequence[str], *, path: Path) -> None:
    for word in words:
        if word.split() != [word]:
            raise InputError(
                f"{path}: id '{word}' is empty or holds white space, which TREC files cannot say"
            )


def _numbers(ids: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(ids)}


def _look_up(rows: Mapping[str, int], name: str, *, where: str) -> int:
    if name not in rows:
        raise InputError(f"{where} '{name}' is not in the data set")
    return rows[name]


def _finite(text: str, *, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise InputError(f"{where}: score '{text}'; expected a finite number")
    return value


def _integer(text: str, *, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: grade '{text}'; expected an integer") from None

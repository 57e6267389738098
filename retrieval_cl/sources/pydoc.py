"""The data everybody already has: docstrings of installed Python code as queries, the code as passages."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.near_copies import near_copies
from retrieval_cl.sources.pydoc_files import SourceFile, package_versions, source_files
from retrieval_cl.sources.pydoc_parse import Documented, parse_file
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts

SPLITS = ("train", "dev", "test")
TEST_SHARE, DEV_SHARE = 0.16, 0.05  # of the modules
MIN_QUERY_WORDS = 3
MAX_ITEMS_PER_QUERY = 3  # a sentence that stands over more code than that is boilerplate
MIN_COPIED_CHARS = 60  # a shorter body (`pass`, `return self.x`) does not make two functions copies
FILES_PER_TASK = 40
NEAR_COPY = 0.8  # Jaccard similarity of 5-token shingles


def build_pydoc(
    *,
    packages: Sequence[str],
    max_pairs: int,
    further_pairs: bool = True,
    num_processes: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> RetrievalData:
    """Reads the standard library and `packages` into query-passage pairs, split by module.

    Queries are the first paragraphs of docstrings, passages are title (qualified name) and code without any
    docstring. Files are taken in an order that depends on their names alone until `max_pairs` definitions are
    found.

    Args:
        packages: names of installed distributions.
        max_pairs: cap on the documented definitions read.
        further_pairs: also take later paragraphs of the docstrings as queries, in the train split only.
        num_processes: parsers side by side; None: one a core.
        progress: gets a line now and then.

    Raises:
        InputError: a package is not installed, or nothing was found.
    """
    versions = package_versions(packages)
    files = sorted(source_files(packages), key=lambda file: _name_hash(file.module))
    found = _parse_all(files, max_pairs=max_pairs, num_processes=num_processes or os.cpu_count() or 1)
    if not found:
        raise InputError(
            f"--packages {' '.join(packages)}: no documented function or class in {len(files)} files"
        )
    found.sort(key=lambda item: (item.module, item.name))
    progress(f"{len(found):,} documented definitions in {len(files):,} files")
    return _to_data(found, versions=versions, further_pairs=further_pairs)


def _parse_all(files: list[SourceFile], *, max_pairs: int, num_processes: int) -> list[Documented]:
    """The definitions of the first files that hold `max_pairs` of them together."""
    tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    found: list[Documented] = []
    for part in _run(tasks, num_processes=num_processes):
        found += part
        if len(found) >= max_pairs:
            break
    return found[:max_pairs]


def _run(tasks: list[list[SourceFile]], *, num_processes: int) -> Iterator[list[Documented]]:
    if num_processes == 1:
        yield from map(_parse_files, tasks)
        return
    # spawn: a forked child of a process that has computed with torch hangs
    pool = ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        for future in [pool.submit(_parse_files, task) for task in tasks]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _parse_files(files: list[SourceFile]) -> list[Documented]:
    return [item for file in files for item in parse_file(file.path, file.module)]


def _to_data(found: list[Documented], *, versions: dict[str, str], further_pairs: bool) -> RetrievalData:
    passage_of, kept = _merge_equal_code(found)
    items = _items(kept)
    split_of = np.array([_split(item.module) for item in kept], dtype=np.int64)
    positives, num_boilerplate = _queries(found, passage_of, items)
    query_splits = {text: int(split_of[rows].min()) for text, rows in positives.items()}
    leaked = _leaked_passages(kept, items, split_of)
    counts = {"definitions": len(found), "boilerplate_queries": num_boilerplate}
    for split in (1, 2):
        gone = [
            text for text, rows in positives.items() if query_splits[text] == split and leaked[rows].any()
        ]
        counts[f"near_copies_removed_from_{SPLITS[split]}"] = len(gone)
        for text in gone:
            del positives[text]
    queries = [(text, rows, query_splits[text], "") for text, rows in positives.items()]
    if further_pairs:
        queries += _further_queries(found, passage_of, split_of, taken=set(positives))
    return _assemble(kept, queries, items, made_by={"source": "pydoc", "packages": versions, **counts})


def _merge_equal_code(found: list[Documented]) -> tuple[Int64[np.ndarray, " F"], list[Documented]]:
    rows: dict[str, int] = {}
    kept: list[Documented] = []
    passage_of = np.zeros(len(found), dtype=np.int64)
    for i, item in enumerate(found):
        key = " ".join(item.code.split()).lower()
        if key not in rows:
            rows[key] = len(kept)
            kept.append(item)
        passage_of[i] = rows[key]
    return passage_of, kept


def _items(kept: list[Documented]) -> Int64[np.ndarray, " N"]:
    """Item number of each passage: passages with one body are one item, numbered by their first row."""
    first: dict[int, int] = {}
    return np.array(
        [
            first.setdefault(item.body, row) if item.body_chars >= MIN_COPIED_CHARS else row
            for row, item in enumerate(kept)
        ],
        dtype=np.int64,
    )


def _queries(
    found: list[Documented], passage_of: Int64[np.ndarray, " F"], items: Int64[np.ndarray, " N"]
) -> tuple[dict[str, list[int]], int]:
    rows: dict[str, set[int]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for item, row in zip(found, passage_of, strict=True):
        key = " ".join(item.query.casefold().split())
        if len(key.split()) >= MIN_QUERY_WORDS:
            rows[key].add(int(row))
            spelling.setdefault(key, item.query)
    asked = {
        key: sorted(found)
        for key, found in rows.items()
        if len(set(items[list(found)])) <= MAX_ITEMS_PER_QUERY
    }
    return {spelling[key]: asked[key] for key in sorted(asked)}, len(rows) - len(asked)


def _leaked_passages(
    kept: list[Documented], items: Int64[np.ndarray, " N"], split_of: Int64[np.ndarray, " N"]
) -> np.ndarray:
    """Marks passages that are, exactly or nearly, one of an earlier split (train before dev before test)."""
    shingles = Ragged.from_lists([memoryview(item.shingles).cast("I").tolist() for item in kept])
    leaked = np.zeros(len(kept), dtype=bool)
    for split in (1, 2):
        rows, earlier = np.flatnonzero(split_of == split), np.flatnonzero(split_of < split)
        leaked[rows] = np.isin(items[rows], items[earlier])
        pairs = near_copies(shingles.take(rows), shingles.take(earlier), threshold=NEAR_COPY)
        leaked[rows[pairs[:, 0]]] = True
    return leaked


def _further_queries(
    found: list[Documented],
    passage_of: Int64[np.ndarray, " F"],
    split_of: Int64[np.ndarray, " N"],
    *,
    taken: set[str],
) -> list[tuple[str, list[int], int, str]]:
    rows: dict[str, set[int]] = defaultdict(set)
    for item, row in zip(found, passage_of, strict=True):
        for paragraph in item.more if split_of[row] == 0 else ():
            rows[paragraph].add(int(row))
    return [
        (text, sorted(found), 0, "+")
        for text, found in sorted(rows.items())
        if len(found) <= MAX_ITEMS_PER_QUERY and text not in taken
    ]


def _assemble(
    kept: list[Documented],
    queries: list[tuple[str, list[int], int, str]],
    items: Int64[np.ndarray, " N"],
    *,
    made_by: dict[str, object],
) -> RetrievalData:
    used = sorted({row for _, rows, _, _ in queries for row in rows})
    new_row = np.full(len(kept), -1, dtype=np.int64)
    new_row[used] = np.arange(len(used))
    splits = {}
    for number, split in enumerate(SPLITS):
        pairs = [
            (q, int(new_row[row]))
            for q, (_, rows, part, _) in enumerate(queries)
            if part == number
            for row in rows
        ]
        array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        if len(array):  # a handful of files may have none for dev or test
            splits[split] = Qrels(array[:, 0], array[:, 1], np.ones(len(array), dtype=np.int64))
    texts = Texts(
        ids=_distinct([kept[row].title for row in used]),
        texts=[kept[row].code for row in used],
        titles=[kept[row].title for row in used],
    )
    return RetrievalData(
        name="pydoc",
        passages=texts,
        queries=Texts(
            [f"q{i}{mark}" for i, (_, _, _, mark) in enumerate(queries)], [text for text, *_ in queries]
        ),
        splits=splits,
        equal=_equal(items[used]),
        made_by=made_by,
    )


def _equal(items: Int64[np.ndarray, " N"]) -> Ragged:
    order = np.argsort(items, kind="stable").astype(np.int64)
    _, group, counts = np.unique(items[order], return_inverse=True, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    group_of = np.empty(len(items), dtype=np.int64)
    group_of[order] = group
    return Ragged(offsets, order).take(group_of)


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def _split(module: str) -> int:
    share = _name_hash("split " + module) / 2**64
    return 2 if share < TEST_SHARE else 1 if share < TEST_SHARE + DEV_SHARE else 0


def _name_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())

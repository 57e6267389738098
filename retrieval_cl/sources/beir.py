"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.core.files import MANIFEST, hash_file, new_folder, read_json, write_manifest
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.checks import id_at, numbered, split_name, string_at
from retrieval_cl.sources.lines import read_jsonl
from retrieval_cl.sources.normalise import group_members, merge_rows
from retrieval_cl.sources.qrels import read_id_pairs, read_qrels
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts

KIND = "beir"
QRELS_SUFFIXES = (".tsv", ".txt", ".qrels", ".trec")
EQUAL = "equal.tsv"
NEGATIVES = "negatives.tsv"
HEADER = ("query-id", "corpus-id", "score")


def read_beir(folder: Path, *, splits: Sequence[str] | None = None) -> RetrievalData:
    """Reads a BEIR folder (Thakur et al. 2021), its files plain or .gz.

    Beside the usual files it may hold `equal.tsv` (two passage ids a line: the same item; chains count) and
    `negatives.tsv` (query id, passage id: a given negative). A title without text becomes the text.

    Args:
        folder: with corpus.jsonl, queries.jsonl and qrels/<split>.tsv (also TREC's four columns).
        splits: the splits to read; None reads all there are.

    Raises:
        InputError: a file or split is missing, or a line of one is broken (file and line).
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; expected one with corpus.jsonl, queries.jsonl and qrels/"
        )
    manifest = _own_manifest(folder)
    passages, passage_rows = _read_texts(_existing(folder, "corpus.jsonl"))
    queries, query_rows = _read_texts(_existing(folder, "queries.jsonl"))
    return RetrievalData(
        name=manifest.get("name", folder.resolve().name),
        passages=passages,
        queries=Texts(queries.ids, queries.texts),
        splits={
            split: read_qrels(path, queries=query_rows, passages=passage_rows)
            for split, path in _qrels_files(folder, splits).items()
        },
        equal=_read_equal(folder / EQUAL, passage_rows),
        given_negatives=_read_negatives(folder / NEGATIVES, query_rows, passage_rows),
        made_by=manifest.get("made_by", {"source": KIND}),
    )


def write_beir(data: RetrievalData, folder: Path, **fields: Any) -> None:
    """Writes `data` as a BEIR folder with a manifest, whole or not at all; equal data gives equal bytes.

    Args:
        data: what to write.
        folder: takes the place of what stood there.
        **fields: further fields of the manifest, beside counts, hashes and `data.made_by`.

    Raises:
        InputError: an id holds a tab or a line break, which no qrels file can name.
    """
    for name in (*data.passages.ids, *data.queries.ids):
        if any(sign in name for sign in "\t\r\n"):
            raise InputError(f"{folder}: id {name!r} holds a tab or line break; qrels files cannot name it")
    with new_folder(folder) as part:
        _write_lines(part / "corpus.jsonl", _passage_lines(data.passages))
        _write_lines(part / "queries.jsonl", _query_lines(data.queries))
        for split, qrels in data.splits.items():
            _write_lines(part / "qrels" / f"{split}.tsv", _qrels_lines(data, qrels))
        if data.equal is not None:
            _write_lines(part / EQUAL, _equal_lines(data.passages.ids, data.equal))
        if data.given_negatives is not None:
            _write_lines(part / NEGATIVES, _negative_lines(data, data.given_negatives))
        write_manifest(part, KIND, **_counts(data), files=_hashes(part), made_by=dict(data.made_by), **fields)


def _existing(folder: Path, name: str) -> Path:
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) == 2:
        raise InputError(f"{folder}: both {name} and {name}.gz are here; remove the one that is not meant")
    if not found:
        raise InputError(f"{folder}: no file {name} or {name}.gz")
    return found[0]


def _read_texts(path: Path) -> tuple[Texts, dict[str, int]]:
    records = read_jsonl(path)
    ids, texts, titles = [], [], []
    for row in range(len(records)):
        text = string_at(records, row, "text")
        title = string_at(records, row, "title").strip() if records.rows[row].get("title") else ""
        blank = not text or text.isspace()
        if blank and not title:
            raise InputError(
                f"{records.place(row)}: empty text; give it a text or a title, or remove the line"
            )
        ids.append(id_at(records, row, ("_id", "id")))
        texts.append(title if blank else text)
        titles.append("" if blank else title)
    if not ids:
        raise InputError(f"{path}: no lines")
    return Texts(ids, texts, titles), numbered(ids, records)


def _qrels_files(folder: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((folder / "qrels").glob("*")):
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        if plain.suffix in QRELS_SUFFIXES:
            split = split_name(plain.stem)
            if split in found:
                raise InputError(f"{path}: a second file for split '{split}' beside {found[split].name}")
            found[split] = path
    if not found:
        raise InputError(f"{folder / 'qrels'}: no judgements; expected train.tsv, dev.tsv or test.tsv")
    for split in splits or ():
        if split not in found:
            valid = ", ".join(found)
            raise InputError(
                f"{folder / 'qrels'}: no split '{split}'; it has {valid}{nearest_name(split, found)}"
            )
    usual = [split for split in ("train", "dev", "test") if split in found]
    return {
        split: found[split] for split in dict.fromkeys([*usual, *found]) if splits is None or split in splits
    }


def _read_equal(path: Path, passages: Mapping[str, int]) -> Ragged | None:
    if not path.is_file():
        return None
    left, right = read_id_pairs(path, left=passages, right=passages, kinds=("passage", "passage"))
    return group_members(merge_rows(left, right, len(passages)))


def _read_negatives(path: Path, queries: Mapping[str, int], passages: Mapping[str, int]) -> Ragged | None:
    if not path.is_file():
        return None
    rows, values = read_id_pairs(path, left=queries, right=passages, kinds=("query", "passage"))
    return Ragged.from_pairs(rows, values, len(queries))


def _own_manifest(folder: Path) -> dict[str, Any]:
    # A folder of our own tells its name and how it was made; a stranger's manifest is not read.
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == KIND else {}


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _passage_lines(texts: Texts) -> Iterator[str]:
    for name, title, text in zip(texts.ids, texts.titles, texts.texts, strict=True):
        yield json.dumps({"_id": name, "title": title, "text": text}, ensure_ascii=False)


def _query_lines(texts: Texts) -> Iterator[str]:
    for name, text in zip(texts.ids, texts.full(), strict=True):
        yield json.dumps({"_id": name, "text": text}, ensure_ascii=False)


def _qrels_lines(data: RetrievalData, qrels: Qrels) -> Iterator[str]:
    yield "\t".join(HEADER)
    columns = (qrels.queries.tolist(), qrels.passages.tolist(), qrels.grades.tolist())
    for query, passage, grade in zip(*columns, strict=True):
        yield f"{data.queries.ids[query]}\t{data.passages.ids[passage]}\t{grade}"


def _equal_lines(ids: Sequence[str], equal: Ragged) -> Iterator[str]:
    groups = merge_rows(equal.rows, equal.values, len(ids)).tolist()
    for row, first in enumerate(groups):
        if row != first:
            yield f"{ids[first]}\t{ids[row]}"


def _negative_lines(data: RetrievalData, negatives: Ragged) -> Iterator[str]:
    for query, passage in zip(negatives.rows.tolist(), negatives.values.tolist(), strict=True):
        yield f"{data.queries.ids[query]}\t{data.passages.ids[passage]}"


def _counts(data: RetrievalData) -> dict[str, object]:
    return {
        "name": data.name,
        "num_passages": len(data.passages),
        "num_queries": len(data.queries),
        "num_judgements": {split: len(qrels.queries) for split, qrels in data.splits.items()},
    }


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}

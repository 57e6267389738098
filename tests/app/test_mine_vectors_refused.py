"""`mine` from stored vectors refuses what does not fit, in one line that names it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_files import files


def ids_of(change):
    def edit(folder):
        path = folder / "p.ids.json"
        ids = json.loads(path.read_text())
        change(ids)
        path.write_text(json.dumps(ids))

    return edit


def vectors_of(change):
    def edit(folder):
        vectors = np.load(folder / "p.npy")
        np.save(folder / "p.npy", change(vectors))

    return edit


def put(row, value):
    def change(vectors):
        vectors[row] = value
        return vectors

    return change


def text_of(old, new):
    def edit(folder):
        path = folder / "known.tsv"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


BROKEN = {
    "other dims": (vectors_of(lambda rows: rows[:, :5]), "q.npy: vectors of 8 numbers", "p.npy: of 5"),
    "NaN": (vectors_of(put(7, np.nan)), "p.npy: passage row 7 (id '1007') holds NaN or infinity"),
    "infinity": (vectors_of(put((8, 2), np.inf)), "passage row 8 (id '1008') holds NaN"),
    "zero": (vectors_of(put(9, 0)), "passage row 9 (id '1009') is zero"),
    "fewer rows than ids": (vectors_of(lambda rows: rows[:80]), "p.ids.json: 90 passage ids for 80 rows"),
    "doubled id": (ids_of(put(5, 1002)), "passage id '1002' stands twice, in rows 2 and 5"),
    "doubled id of another type": (ids_of(put(5, "1002")), "passage id '1002' stands twice"),
    "-1": (ids_of(put(4, -1)), "the passage id of row 4 is -1, which means: none"),
    "empty id": (ids_of(put(4, " ")), "the passage id of row 4 is empty"),
    "null id": (ids_of(put(4, None)), "the passage id of row 4 is empty"),
    "no ids": (lambda folder: (folder / "p.ids.json").unlink(), "p.ids.json: no such file", "JSON list"),
    "ids are no list": (lambda f: (f / "p.ids.json").write_text("{}"), "expected a JSON list of ids"),
    "no vectors": (lambda folder: (folder / "p.npy").unlink(), "p.npy: no such file"),
    "unknown passage": (text_of("q1\t1003", "q1\tx"), "known.tsv, line 4: unknown passage id 'x'"),
    "-1 as a positive": (text_of("q1\t1003", "q1\t-1"), "line 4: unknown passage id '-1'"),
    "unknown query": (text_of("q1\t", "q99\t"), "line 4: unknown query id 'q99'"),
    "no pair": (lambda folder: (folder / "known.tsv").write_text("\n"), "known.tsv"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_named_in_one_line(cli, stored, name):
    breaking, *parts = BROKEN[name]
    breaking(stored)
    ran = cli("mine", *files(stored))
    assert ran.code == 2 and ran.line.startswith("error: ")
    for part in parts:
        assert part in ran.line
    assert not (stored / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--set", "mining.candidates=train"), "mining.candidates has no effect on stored vectors"),
        (("--set", "mining.near_text=0.5"), "mining.near_text has no effect on stored vectors"),
        (("--set", "mining.reranker=x"), "mining.reranker has no effect on stored vectors"),
        (("--set", "source.path=x"), "'source' has no effect"),
        (("--set", "mining.factory=Flta"), "mining.factory 'Flta' for 90 vectors of dim 8: FAISS refuses it"),
        (("--set", "mining.target_recall=0.9"), "target_recall 0.9 has no effect on exact search"),
        (("--set", "mining.quotas.lexical=1"), "mining.quotas.lexical: nothing gives"),
        (("--set", "mining.max_score=-1"), "no negative for any of 30 queries: of 2,700 candidates"),
        (("--shape", "tuples"), "--shape"),
        (("--data", "x"), "--data"),
        (("--store", "x"), "--store"),
        (("--memory", "much"), "memory 'much' is no size"),
        (("--memory", "2GiB", "--set", "mining.factory=Flat"), "--memory 2GiB bounds exact search"),
        (("--bound", "1.5"), "--bound 1.5"),
        (("--hidden-share", "0"), "--hidden-share 0"),
    ],
)
def test_an_option_without_effect_or_out_of_bounds_is_refused(cli, stored, arguments, part):
    ran = cli("mine", *files(stored), *arguments)
    assert ran.code == 2 and part in ran.err.splitlines()[-1]
    assert not (stored / "out").exists()


def test_all_three_files_are_needed(cli, stored):
    ran = cli("mine", "--query-vectors", stored / "q.npy", "-o", stored / "out")
    assert ran.code == 2 and "all three" in ran.line


def test_a_broken_parquet_is_named(cli, stored):
    (stored / "p.parquet").write_text("no")
    ran = cli("mine", *files(stored, passages="p.parquet"))
    assert ran.code == 2 and "no readable Parquet file" in ran.line
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]}), stored / "p.parquet")
    ran = cli("mine", *files(stored, passages="p.parquet"))
    assert ran.code == 2 and "the vector of row 1 has not the 2 numbers of the first" in ran.line
    pq.write_table(pa.table({"vector": [[1.0, 2.0]]}), stored / "p.parquet")
    ran = cli("mine", *files(stored, passages="p.parquet"))
    assert ran.code == 2 and "no column 'id'" in ran.line


@pytest.mark.parametrize(
    ("vectors", "part"),
    [
        (["a", "b"], "column 'vector' holds string; expected lists of numbers"),
        ([["a"], ["b"]], "column 'vector' holds list<element: string>; expected lists of numbers"),
        ([None, [1.0]], "the vector of row 0 is missing or has no numbers"),
        ([[1.0], None], "the vector of row 1 has not the 1 numbers of the first"),
        (pa.array([[], []], pa.list_(pa.float32())), "the vector of row 0 is missing or has no numbers"),
    ],
)
def test_a_column_of_something_else_is_named(cli, stored, vectors, part):
    pq.write_table(pa.table({"id": ["a", "b"], "vector": vectors}), stored / "p.parquet")
    ran = cli("mine", *files(stored, passages="p.parquet"))
    assert ran.code == 2 and part in ran.line.replace("list<item", "list<element")

"""`mine` from stored vectors and ids alone: its plan, its comparison with an older table, what it refuses."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from retrieval_cl.mining.table import NegativeTable

NUM_QUERIES, NUM_PASSAGES, DIM = 30, 90, 8


def write(path, vectors, ids):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "vector": [row.tolist() for row in vectors]}), path)
        return path
    if path.suffix == ".npy":
        np.save(path, vectors)
    else:
        save_file({"vectors": vectors}, path)
    path.with_suffix(".ids.json").write_text(json.dumps(ids))
    return path


@pytest.fixture
def stored(tmp_path):
    """Queries with three right answers each, the passages of query i are 3 i to 3 i + 2; not unit rows."""
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((NUM_QUERIES, DIM)).astype(np.float32)
    near = np.repeat(queries, 3, axis=0) + 0.4 * generator.standard_normal((NUM_PASSAGES, DIM))
    passages = (3 * near).astype(np.float32)
    write(tmp_path / "q.npy", queries, [f"q{row}" for row in range(NUM_QUERIES)])
    write(tmp_path / "p.npy", passages, list(range(1000, 1000 + NUM_PASSAGES)))
    pairs = [f"q{row // 3}\t{1000 + row}" for row in range(NUM_PASSAGES)]
    (tmp_path / "known.tsv").write_text("\n".join(pairs) + "\n")
    return tmp_path


def files(folder, queries="q.npy", passages="p.npy", positives="known.tsv"):
    return (
        *("--query-vectors", folder / queries, "--passage-vectors", folder / passages),
        *("--positives", folder / positives, "-o", folder / "out"),
    )


def rows_of(folder):
    return [json.loads(line) for line in (folder / "out" / "negatives.jsonl").read_text().splitlines()]


def test_without_a_report_no_page_stands_beside_the_table_not_even_an_older_one(cli, stored):
    assert cli("mine", *files(stored), "-o", stored / "out", "--report").code == 0
    assert (stored / "out" / "mining.html").is_file()
    ran = cli("mine", *files(stored), "-o", stored / "out", "--no-report")
    assert ran.code == 0 and ran.out.splitlines()[-1].startswith("table and counts in")
    assert not (stored / "out" / "mining.html").exists()
    assert "audit" in json.loads((stored / "out" / "mining.json").read_text())


def test_vectors_and_ids_alone_give_negatives_by_id_with_their_cosines(cli, stored):
    ran = cli("mine", *files(stored))
    assert ran.code == 0, ran.err
    queries, passages = np.load(stored / "q.npy"), np.load(stored / "p.npy")
    queries, passages = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, passages))
    cosines = queries @ passages.T
    rows = rows_of(stored)
    assert len(rows) == NUM_PASSAGES
    for row in rows:
        query, positive = int(row["query"][1:]), int(row["positive"]) - 1000
        assert positive // 3 == query
        negatives = [int(one) - 1000 for one in row["negatives"]]
        assert all(one // 3 != query for one in negatives)
        wanted = [cosines[query, one] for one in (positive, *negatives)]
        assert row["scores"] == pytest.approx(wanted, abs=1e-5)
        # The hardest that lie 5 % below the weakest positive.
        limit = 0.95 * min(cosines[query, 3 * query : 3 * query + 3])
        others = [c for p, c in enumerate(cosines[query]) if p // 3 != query and c <= limit]
        assert row["scores"][1:] == pytest.approx(sorted(others, reverse=True)[:4], abs=1e-5)
    facts = json.loads((stored / "out" / "mining.json").read_text())
    assert facts["counts"]["num_queries"] == NUM_QUERIES
    assert facts["estimates"][0]["held_back"]["hidden"] == 2 * NUM_QUERIES
    assert "Estimated false-negative rate" in (stored / "out" / "mining.html").read_text()
    assert "false negatives, by judgements held back" in ran.out
    assert NegativeTable.load(stored / "out" / "negatives").rows.shape == (NUM_QUERIES, 4)


def test_every_kind_of_file_gives_the_same_negatives(cli, stored):
    queries, passages = np.load(stored / "q.npy"), np.load(stored / "p.npy")
    cli("mine", *files(stored))
    first = rows_of(stored)
    ids = [str(one) for one in range(1000, 1000 + NUM_PASSAGES)]
    write(stored / "p.parquet", passages, ids)
    write(stored / "q.safetensors", queries, [f"q{row}" for row in range(NUM_QUERIES)])
    lines = [
        json.dumps({"query": f"q{row}", "positives": [1000 + 3 * row, *ids[3 * row + 1 : 3 * row + 3]]})
        for row in range(NUM_QUERIES)
    ]
    (stored / "known.jsonl").write_text("\n".join(lines))
    (stored / "known.qrels").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "\n".join(f"q{row // 3}\t{1000 + row}\t1" for row in range(NUM_PASSAGES))
        + "\nq0\t1010\t0\n"
    )
    for queries_file, passages_file, positives in (
        ("q.safetensors", "p.parquet", "known.jsonl"),
        ("q.npy", "p.parquet", "known.qrels"),
    ):
        ran = cli("mine", *files(stored, queries_file, passages_file, positives))
        assert ran.code == 0, ran.err
        assert rows_of(stored) == first


def test_half_precision_is_read_and_a_query_without_a_positive_is_left_out(cli, stored):
    np.save(stored / "p.npy", np.load(stored / "p.npy").astype(np.float16))
    text = (stored / "known.tsv").read_text().splitlines()
    (stored / "known.tsv").write_text("\n".join(line for line in text if not line.startswith("q7\t")))
    ran = cli("mine", *files(stored))
    assert ran.code == 0 and "1 queries have no positive and are left out" in ran.err, ran.err
    assert "q7" not in {row["query"] for row in rows_of(stored)} and len(rows_of(stored)) == 87


def test_the_plan_comes_first_and_a_dry_run_writes_nothing(cli, stored):
    ran = cli("mine", *files(stored), "--dry-run")
    assert ran.code == 0 and not (stored / "out").exists(), ran.err
    assert f"plan: {NUM_QUERIES} queries, {NUM_PASSAGES} passages of {DIM} numbers" in ran.out
    assert "search 43 kFLOP" in ran.out and "memory about" in ran.out and "encode" not in ran.out
    assert cli("mine", *files(stored), "--plan").out.splitlines()[0] == ran.out.splitlines()[0]
    ran = cli("mine", *files(stored))
    assert ran.err.splitlines()[0].startswith("plan: 30 queries") and "plan:" not in ran.out


def test_an_older_table_is_compared_with(cli, stored):
    cli("mine", *files(stored))
    (stored / "out").rename(stored / "old")
    ran = cli("mine", *files(stored), "--against", stored / "old")
    assert ran.code == 0 and "120 shared (100%), 0 new, 0 gone" in ran.out, ran.err
    ran = cli("mine", *files(stored), "--against", stored / "old", "--set", "mining.rank_min=8")
    found = json.loads((stored / "out" / "mining.json").read_text())["audit"]["difference"]
    assert found["gone"] > 0 and found["shared"] + found["added"] <= 120 and found["shared_share"] < 1
    assert "Difference to the older table" in (stored / "out" / "mining.html").read_text()


def test_an_older_table_of_other_ids_is_refused(cli, stored):
    cli("mine", *files(stored))
    (stored / "out").rename(stored / "old")
    (stored / "q.ids.json").write_text((stored / "q.ids.json").read_text().replace('"q3"', '"x3"'))
    (stored / "known.tsv").write_text((stored / "known.tsv").read_text().replace("q3\t", "x3\t"))
    ran = cli("mine", *files(stored), "--against", stored / "old")
    assert ran.code == 2 and "give a table of the same data" in ran.err
    ran = cli("mine", *files(stored), "--against", stored / "nowhere")
    assert ran.code == 2 and "nowhere" in ran.err


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
        (("--set", "mining.quotas.lexical=1"), "mining.quotas.lexical: nothing gives"),
        (("--set", "mining.max_score=-1"), "no negative for any of 30 queries: of 2,700 candidates"),
        (("--shape", "tuples"), "--shape"),
        (("--data", "x"), "--data"),
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


def test_the_bounded_memory_gives_the_same_negatives(cli, stored):
    cli("mine", *files(stored))
    first = rows_of(stored)
    ran = cli("mine", *files(stored), "--memory", "32MiB")
    assert ran.code == 0 and rows_of(stored) == first, ran.err
    ran = cli("mine", *files(stored), "--memory", "1MiB")
    assert ran.code == 2 and "--memory 1MiB: exact search needs at least" in ran.line


def test_a_faiss_search_is_measured_and_an_exact_one_needs_not(cli, stored):
    assert "recall@" not in cli("mine", *files(stored)).out
    assert json.loads((stored / "out" / "mining.json").read_text())["search_recall"] is None
    ran = cli("mine", *files(stored), "--set", "mining.factory=Flat")
    assert f"search: recall@90 1.0000 [0.8865, 1.0000] against exact search, {NUM_QUERIES} queries" in ran.out
    assert json.loads((stored / "out" / "mining.json").read_text())["search_recall"]["mean"] == 1


def test_a_store_of_embed_is_mined(cli, trained, data, tmp_path):
    ran = cli("embed", trained, "--file", data / "corpus.jsonl", "-o", tmp_path / "p", "--dtype", "float32")
    assert ran.code == 0, ran.err
    cli("embed", trained, "--file", data / "corpus.jsonl", "-o", tmp_path / "q.npy", "--kind", "query")
    names = json.loads((tmp_path / "p.ids.json").read_text())
    (tmp_path / "known.tsv").write_text("".join(f"{name}\t{name}\n" for name in names))
    ran = cli("mine", *files(tmp_path, passages="p"), "--set", "mining.relative_margin=null")
    assert ran.code == 0, ran.err
    assert len(rows_of(tmp_path)) == len(names)
    (tmp_path / "p.ids.json").unlink()
    ran = cli("mine", *files(tmp_path, passages="p"))
    assert ran.code == 2 and "p.ids.json: no such file" in ran.err

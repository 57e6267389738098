"""`mine` from stored vectors and ids alone: its plan, its comparison with an older table."""

import json

import numpy as np
import pytest
from stored_files import DIM, NUM_PASSAGES, NUM_QUERIES, files, rows_of, write

from retrieval_cl.mining.table import NegativeTable


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

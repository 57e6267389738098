"""Every command does its job on a tiny data set, and says what it did."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

HELP = """
import sys
sys.argv = ["retrieval-cl", "--help"]
from retrieval_cl.app import main
try:
    main()
except SystemExit as stop:
    heavy = {"torch", "numpy", "transformers", "sentence_transformers", "datasets", "pyarrow", "scipy"}
    print(stop.code, sorted(heavy & sys.modules.keys()))
"""


def test_help_needs_no_heavy_library():
    ran = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert "quickstart" in ran.stdout and "search" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("command", ["quickstart", "train", "mine", "eval", "index", "search", "embed"])
def test_help_of_a_command_gives_examples(cli, command):
    ran = cli(command, "--help")
    assert ran.code == 0
    assert f"retrieval-cl {command}" in " ".join(ran.out.split())


def test_no_command_shows_the_help(cli):
    ran = cli()
    assert ran.code == 2 and "quickstart" in ran.out + ran.err


def test_train_leaves_model_metrics_config_results_and_report(cli, beir, tmp_path, small):
    ran = cli("train", "--data", beir, "--output", tmp_path / "run", *small)
    assert ran.code == 0, ran.err
    assert "trained" in ran.out and "bm25" in ran.out and "hybrid" in ran.out
    assert "round 2/2" in ran.err
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    assert results["num_passages"] == 48 and results["num_test_queries"] == results["num_queries"] > 5
    for system in ("bm25", "trained", "hybrid"):
        scores = results["systems"][system]
        assert {"mean", "low", "high"} <= scores["recall@10"].keys()
        assert {f"recall@{k}" for k in (1, 5, 10, 50, 100)} <= scores.keys()
        assert {f"success@{k}" for k in (1, 5, 10, 50, 100)} <= scores.keys()
    assert {(one["system"], one["than"]) for one in results["comparisons"]} >= {("trained", "bm25")}
    assert results["settings"]["training"]["batch_size"] == 16
    assert (run / "report.html").read_text().count("<svg") >= 3
    assert len((run / "per_query.jsonl").read_text().splitlines()) == results["num_test_queries"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == results["steps"]


def test_eval_of_a_run_reads_its_data_and_gives_the_numbers_training_gave(cli, trained):
    ran = cli("eval", trained)
    assert ran.code == 0, ran.err
    theirs = json.loads((trained / "results.json").read_text())["systems"]
    ours = json.loads((trained / "eval-test" / "results.json").read_text())["systems"]
    assert ours["bm25"] == theirs["bm25"]
    assert ours["run"] == theirs["trained"] and ours["hybrid"] == theirs["hybrid"]


def test_eval_against_a_second_model_tests_the_difference(cli, trained, trained_once, tmp_path):
    other = trained_once / "run" / "model"
    ran = cli("eval", trained / "model", "--against", other, "--trec", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    pairs = {(one["system"], one["than"]): one["p"] for one in results["comparisons"]}
    models = list(results["models"])
    assert pairs[models[0], models[1]] == 1.0  # equal weights
    assert (tmp_path / "out" / "bm25.trec").read_text().split()[1] == "Q0"


def test_search_finds_the_passage_by_meaning_words_and_both(cli, trained):
    for mode in ("dense", "bm25", "hybrid"):
        ran = cli("search", trained, "sort", "the", "table", "--mode", mode, "--json", "-k", "3")
        assert ran.code == 0, ran.err
        answer = json.loads(ran.out)
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
        assert answer["hits"][0]["id"] == "sort-table", mode
        assert answer["hits"][0].keys() >= {"score", "title", "snippet", "text"}
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == sorted(scores, reverse=True)


def test_search_prints_title_and_snippet(cli, trained):
    ran = cli("search", trained / "index", "sort table", "-k", 1)
    assert ran.out.splitlines()[0].endswith("sort table")
    assert "library.sort(table, path)" in ran.out


def test_index_can_travel_with_a_copy_of_its_model(cli, trained, tmp_path):
    ran = cli("index", trained, "--copy-model", "-o", tmp_path / "own", "--set", "index.lexical=false")
    assert ran.code == 0, ran.err
    trained.rename(trained.with_name("gone"))
    (tmp_path / "own").rename(tmp_path / "moved")
    ran = cli("search", tmp_path / "moved", "sort table", "--json", "-k", 1)
    assert json.loads(ran.out)["hits"][0]["id"] == "sort-table"


def test_index_of_a_plain_file_of_texts(cli, trained, tmp_path):
    (tmp_path / "notes.txt").write_text("open a socket\nmerge two tables\n\nsort a list\n")
    ran = cli("index", trained, "--corpus", tmp_path / "notes.txt", "-o", tmp_path / "notes")
    assert ran.code == 0 and ran.out.startswith("3 passages"), ran.err
    ran = cli("search", tmp_path / "notes", "merge two tables", "--json", "-k", 1)
    assert json.loads(ran.out)["hits"][0] | {"score": 0} == {
        "rank": 1,
        "score": 0,
        "id": "2",
        "title": "",
        "snippet": "merge two tables",
        "text": "merge two tables",
    }


def test_faiss_index_finds_what_exact_search_finds(cli, trained, tmp_path):
    pytest.importorskip("faiss")
    ran = cli("index", trained, "-o", tmp_path / "flat", "--set", "index.factory=Flat")
    assert ran.code == 0, ran.err
    queries = ("search", "count images", "--json")
    exact, flat = (
        json.loads(cli(*queries[:1], folder, *queries[1:]).out) for folder in (trained, tmp_path / "flat")
    )
    assert exact == flat


def test_index_prints_the_recall_it_measured_and_obeys_its_memory(cli, trained, tmp_path):
    pytest.importorskip("faiss")
    ran = cli("index", trained, "-o", tmp_path / "a", "--factory", "IVF4,Flat", "--target-recall", 0.9)
    assert ran.code == 0, ran.err
    recall = json.loads((tmp_path / "a" / "manifest.json").read_text())["faiss"]["recall"]
    assert recall["queries"] == "given" and recall["mean"] >= recall["target"] == 0.9
    line = next(line for line in ran.out.splitlines() if line.startswith("FAISS IVF4,Flat (nprobe "))
    assert f"recall@10 {recall['mean']:.4f} [{recall['low']:.4f}, {recall['high']:.4f}]" in line
    ran = cli("index", trained, "-o", tmp_path / "b", "--factory", "Flat", "--memory", "2KiB")
    assert ran.code == 2 and "building it takes" in ran.err and not (tmp_path / "b").exists()
    ran = cli("index", trained, "-o", tmp_path / "b", "--memory", "1GiB")
    assert ran.code == 2 and "index.memory has no effect" in ran.err


def test_embed_writes_the_same_vectors_in_every_format(cli, trained, tmp_path, data):
    found = []
    for suffix in ("npy", "safetensors", "parquet"):
        ran = cli("embed", trained, "--file", data / "corpus.jsonl", "-o", tmp_path / f"v.{suffix}")
        assert ran.code == 0 and "48 vectors of 16 numbers" in ran.out, ran.err
    table = pq.read_table(tmp_path / "v.parquet")
    found = [
        np.load(tmp_path / "v.npy"),
        load_file(tmp_path / "v.safetensors")["vectors"],
        np.array(table["vector"].to_pylist(), dtype=np.float32),
    ]
    assert all(np.array_equal(one, found[0]) for one in found)
    assert np.allclose(np.linalg.norm(found[0], axis=1), 1, atol=1e-6)
    assert table["id"].to_pylist() == json.loads((tmp_path / "v.ids.json").read_text())
    assert table["id"][0].as_py() == "open-file"
    assert np.array_equal(found[0], np.load(trained / "index" / "vectors.npy"))


def test_embed_keeps_a_store_that_embeds_only_what_is_new(cli, trained, tmp_path, data):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text((data / "corpus.jsonl").read_text())
    assert "48 embedded, 0 kept" in cli("embed", trained, "--file", corpus, "-o", tmp_path / "store").out
    with corpus.open("a") as lines:
        lines.write(json.dumps({"_id": "new", "title": "", "text": "close a socket"}) + "\n")
    ran = cli("embed", trained, "--file", corpus, "-o", tmp_path / "store")
    assert ran.code == 0 and "49 vectors" in ran.out and "1 embedded, 48 kept" in ran.out, ran.err
    assert json.loads((tmp_path / "store.ids.json").read_text())[-1] == "new"
    ran = cli("embed", trained, "word", "-o", tmp_path / "v.npy", "--dtype", "float16")
    assert ran.code == 2 and "--dtype float16 has no effect" in ran.err


def test_embed_takes_texts_from_the_command_line(cli, trained, tmp_path):
    ran = cli("embed", trained, "open a file", "sort", "--kind", "query", "-o", tmp_path / "v.npy")
    assert ran.code == 0 and np.load(tmp_path / "v.npy").shape == (2, 16), ran.err


@pytest.mark.parametrize(("shape", "suffix"), [("triplets", "jsonl"), ("tuples", "parquet")])
def test_mine_writes_texts_whose_negatives_are_no_right_answers(cli, trained, data, shape, suffix):
    ran = cli("mine", trained, "--shape", shape, "--format", suffix, "--set", "mining.relative_margin=null")
    assert ran.code == 0, ran.err
    path = trained / "mined" / f"{shape}.{suffix}"
    if suffix == "parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows
    texts = {}
    for line in (data / "corpus.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts[f"{row['title']}\n{row['text']}"] = row["_id"]
    for row in rows:
        verb, thing = texts[row["positive"]].split("-")
        assert verb in row["query"] and thing in row["query"]
        negatives = [value for key, value in row.items() if key.startswith("negative")]
        assert all(texts[negative] != texts[row["positive"]] for negative in negatives)
    counts = json.loads((trained / "mined" / "mining.json").read_text())
    assert counts["rows"] == len(rows) and counts["counts"]["num_queries"] > 0
    assert "<svg" in (trained / "mined" / "mining.html").read_text()


def test_mine_without_a_model_takes_the_pretrained_encoder_of_the_config(cli, trained, tmp_path, data):
    config = tmp_path / "mine.yaml"
    config.write_text(f"encoder: {{kind: sentence_transformer, path: {trained / 'model'}}}\n")
    ran = cli("mine", "--config", config, "--data", data, "-o", tmp_path / "out")
    assert ran.code == 0 and (tmp_path / "out" / "triplets.jsonl").is_file(), ran.err


def test_fine_tuning_a_model_measures_it_before_and_after(cli, trained, tmp_path, data):
    sets = (
        "encoder.kind=sentence_transformer",
        f"encoder.path={trained / 'model'}",
        "training.batch_size=16",
        "training.rounds=1",
    )
    arguments = [one for setting in sets for one in ("--set", setting)]
    ran = cli("train", "--data", data, "-o", tmp_path / "tuned", *arguments)
    assert ran.code == 0, ran.err
    systems = json.loads((tmp_path / "tuned" / "results.json").read_text())["systems"]
    before = json.loads((trained / "results.json").read_text())["systems"]["trained"]
    assert list(systems) == ["bm25", "zero-shot", "fine-tuned", "hybrid"]
    assert systems["zero-shot"] == before


def test_data_without_a_test_split_is_trained_on_and_measured_on_dev(cli, beir, tmp_path, small):
    (beir / "qrels" / "test.tsv").unlink()
    ran = cli("train", "--data", beir, "-o", tmp_path / "run", *small)
    assert ran.code == 0 and "dev recall@10" in ran.out, ran.err
    assert (tmp_path / "run" / "report.html").is_file()

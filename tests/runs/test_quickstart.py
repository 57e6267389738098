"""The main job on a small part of the docs: all it leaves is there, and the same from outside."""

import json
import math
import subprocess
import sys

import pytest

from retrieval_cl.runs.quickstart import quickstart
from retrieval_cl.runs.recipes import control_config, quickstart_config
from retrieval_cl.runs.search import Searcher, find_index

SMALL = (
    "source.packages=[click]",
    "source.max_pairs=1200",
    "encoder.dim=32",
    "encoder.vocab_size=2000",
    "training.batch_size=64",
    "training.health_every=5",
)
SYSTEMS = ("bm25", "control", "mined", "hybrid")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    return quickstart(quickstart_config([*SMALL, f"output={folder}"]))


@pytest.fixture(scope="module")
def results(done):
    return json.loads((done.folder / "results.json").read_text(encoding="utf8"))


def test_results_hold_each_system_with_intervals_and_p_values(done, results):
    for system in SYSTEMS:
        for metric in ("recall@10", "mrr@10", "ndcg@10"):
            value = results[system][metric]
            assert 0 <= value["low"] <= value["mean"] <= value["high"] <= 1, (system, metric)
    assert 0 < results["p_mined_vs_control"] <= 1 and 0 < results["p_mined_vs_bm25"] <= 1
    assert results["num_test_queries"] == len(done.scoreboard.judged.queries) > 20
    assert results["num_passages"] > 500 and results["seconds"] > 0 and 0 < results["peak_rss_gib"] < 8


def test_control_takes_as_many_steps_from_the_same_settings(results):
    assert results["steps"]["control"] == results["steps"]["mined"] > 0
    config = quickstart_config(SMALL)
    control = control_config(config, folder=config.folder / "control", steps=7)
    assert (control.training.rounds, control.training.num_negatives, control.training.steps) == (1, 0, 7)
    for section in ("source", "encoder", "evaluation", "index"):
        assert getattr(control, section) == getattr(config, section)
    own = {
        "rounds",
        "num_negatives",
        "steps",
        "lr",
        "epochs_per_round",
        "first_round_epochs",
        "first_mined_round",
    }
    for key in set(type(config.training).model_fields) - own:
        assert getattr(control.training, key) == getattr(config.training, key), key


def test_folder_holds_model_index_data_and_a_report_with_both_arms(done):
    for name in (
        "model/modules.json",
        "index/manifest.json",
        "data/corpus.jsonl",
        "results.json",
        "config.yaml",
    ):
        assert (done.folder / name).is_file(), name
    page = (done.folder / "report.html").read_text(encoding="utf8")
    assert page.count("<svg") >= 4
    assert "Did hard negatives help?" in page and "BM25" in page


def test_mining_has_left_its_counts_in_the_metrics(done):
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    mined = [line["mining"] for line in lines if "mining" in line]
    assert len(mined) == quickstart_config(SMALL).training.rounds - 1
    assert all(sum(one["drawn"].values()) > 0 for one in mined)


BARE = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
rows = [json.loads(line) for line in open(sys.argv[2], encoding="utf8")]
passages = model.encode([row["title"] + "\\n" + row["text"] for row in rows])
scores = passages @ model.encode(sys.argv[3])
order = np.argsort(-scores, kind="stable")[:5]
assert "retrieval_cl" not in sys.modules
print(json.dumps([[rows[i]["_id"], float(scores[i])] for i in order]))
"""


def test_bare_sentence_transformers_finds_the_same_hits(done):
    question = "read a line of input from the user"
    ours = Searcher(find_index(done.folder / "index")).search(question, k=5)
    arguments = [done.folder / "model", done.folder / "data" / "corpus.jsonl", question]
    ran = subprocess.run(
        [sys.executable, "-c", BARE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    theirs = json.loads(ran.stdout.splitlines()[-1])
    assert [hit.id for hit in ours.hits] == [name for name, _ in theirs]
    assert all(
        math.isclose(hit.score, score, abs_tol=1e-5)
        for hit, (_, score) in zip(ours.hits, theirs, strict=True)
    )


def test_without_control_nothing_is_said_of_one(tmp_path):
    done = quickstart(
        quickstart_config([*SMALL, "training.rounds=2", f"output={tmp_path / 'run'}"]), with_control=False
    )
    results = json.loads((done.folder / "results.json").read_text(encoding="utf8"))
    assert "control" not in results and "p_mined_vs_control" not in results
    assert not (done.folder / "control").exists()
    assert "was not measured" in (done.folder / "report.html").read_text(encoding="utf8")

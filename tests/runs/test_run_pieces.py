"""Small pieces: shared vectors, snippets, texts from files, what a model name means, time and memory."""

import time

import numpy as np
import pytest
import torch

from retrieval_cl.core import shares
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.runs.corpus import given_texts, read_texts
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import snippet
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.trainer import start_run


def test_vectors_are_made_once_a_step_and_anew_after_it(text, encoder):
    vectors = Vectors(text, encoder, precision="fp32")
    first = vectors.passages()
    assert vectors.passages() is first
    with torch.no_grad():
        next(encoder.parameters()).mul_(-1)
    method = DualEncoder(encoder, Temperature(0.1))
    run = start_run(method, TrainingConfig(), steps_per_epoch=1)
    vectors.on_step(run, torch.zeros(()), {})
    assert np.allclose(vectors.passages(), -first, atol=1e-6)


def test_some_passages_are_rows_of_all(text, encoder):
    rows = np.array([3, 1, 40])
    alone = Vectors(text, encoder, precision="fp32").some_passages(rows)
    vectors = Vectors(text, encoder, precision="fp32")
    assert np.array_equal(vectors.passages()[rows], vectors.some_passages(rows))
    assert np.allclose(alone, vectors.some_passages(rows), atol=1e-6)


def test_a_broken_vector_is_named_by_its_row_of_the_corpus(text, encoder, monkeypatch):
    monkeypatch.setattr(shares, "MIN_ROWS", 4)
    token = int(encoder.tokenize(["count"], kind="passage").values[0])
    broken = [row for row in range(48) if token in text.passage_tokens[row]]
    with torch.no_grad():
        next(encoder.parameters())[token] = float("nan")
    vectors = Vectors(text, encoder, precision="fp32")
    with pytest.raises(InputError, match=rf"passage row ({'|'.join(map(str, broken))}) is NaN"):
        vectors.passages()
    with pytest.raises(InputError, match=rf"passage row {broken[-1]} is NaN"):
        vectors.some_passages(np.array([0, broken[-1]]))
    assert min(broken) > 8 and len(broken) < 12


def test_snippet_shows_the_part_with_most_of_the_wanted_words():
    text = "nothing here " * 30 + "open the FILE and read it " + "more of nothing " * 30
    shown = snippet(text, {"open", "file"}, num_chars=60)
    assert "open the FILE" in shown and shown.startswith("... ") and shown.endswith(" ...")
    assert snippet("short\n  text", {"x"}) == "short text"
    assert snippet("word " * 100, {"x"}, num_chars=20) == "word word word word ..."


def test_texts_of_a_file_keep_ids_and_titles(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,title,text\nx,T,body\ny,,only text\nz,only title,\n")
    texts = read_texts(path)
    assert (texts.ids, texts.titles, texts.texts) == (
        ["x", "y", "z"],
        ["T", "", ""],
        ["body", "only text", "only title"],
    )
    lines = tmp_path / "b.txt"
    lines.write_text("first\n\n third \n")
    assert (read_texts(lines).ids, read_texts(lines).texts) == (["1", "3"], ["first", " third "])
    assert given_texts(["a", "b"]).ids == ["1", "2"]


def test_model_name_means_a_run_a_folder_or_an_id(tmp_path):
    run = tmp_path / "my_run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "modules.json").touch()
    alone = find_model(str(run / "model"))
    assert (alone.name, alone.run) == ("model", None)
    (run / "config.yaml").touch()
    for name in (run, run / "model"):
        model = find_model(str(name))
        assert (model.path, model.name, model.run, model.is_folder) == (
            str(run / "model"),
            "my_run",
            run,
            True,
        )
    hub = find_model("sentence-transformers/all-MiniLM-L6-v2")
    assert (hub.name, hub.run, hub.is_folder) == ("all-MiniLM-L6-v2", None, False)
    (run / "model" / "modules.json").unlink()
    with pytest.raises(InputError, match="no model in this folder; training has not finished"):
        find_model(str(run))


def test_stopwatch_adds_up_stages():
    watch = Stopwatch()
    for _ in range(2):
        with watch("wait"):
            time.sleep(0.01)
    assert 0.02 <= watch.seconds["wait"] <= watch.total
    with pytest.raises(KeyError), watch("broken"):
        raise KeyError
    assert list(watch.seconds) == ["wait", "broken"]


def test_peak_memory_grows_with_what_is_held():
    before = peak_rss_gib()
    held = np.ones(2**26, dtype=np.float64)  # 0.5 GiB
    assert held.sum() == 2**26
    assert peak_rss_gib() >= max(before, 0.5)


def test_machine_is_told_in_one_line():
    line = describe_machine()
    assert "cores" in line and f"torch {torch.__version__}" in line and "\n" not in line

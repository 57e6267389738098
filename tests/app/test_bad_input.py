"""Every bad input ends in one line and exit code 2: what came, what is valid, which file and line or key."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def edit(path, old, new, count=1):
    text = path.read_text(encoding="utf8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf8")


def refused(ran, *parts):
    assert ran.code == 2, ran.err
    assert ran.out == ""
    line = ran.err.splitlines()[-1]
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    return line


def only_line(ran, *parts):
    assert len(ran.err.splitlines()) == 1, ran.err
    return refused(ran, *parts)


BROKEN = {
    "missing folder": (lambda beir: beir.rename(beir.with_name("gone")), "--data"),
    "missing file": (lambda beir: (beir / "queries.jsonl").unlink(), "no file queries.jsonl"),
    "missing column": (
        lambda beir: edit(beir / "corpus.jsonl", '"text"', '"txet"'),
        "corpus.jsonl, line 1: no value in column 'text'; columns found: _id, title, txet",
    ),
    "broken JSON": (
        lambda beir: edit(beir / "queries.jsonl", '"q2"', '"q2'),
        "queries.jsonl, line 3: broken JSON",
    ),
    "broken UTF-8": (
        lambda beir: (beir / "corpus.jsonl").write_bytes(
            (beir / "corpus.jsonl").read_bytes().replace(b"open table", b"open t\xffble", 1)
        ),
        "corpus.jsonl, line 3: not UTF-8 (byte 0xff)",
    ),
    "empty text": (
        lambda beir: (beir / "queries.jsonl").write_text('{"_id": "q0", "text": " "}\n'),
        "queries.jsonl, line 1: empty text",
    ),
    "duplicate id": (
        lambda beir: edit(beir / "corpus.jsonl", "open-socket", "open-file"),
        "corpus.jsonl, line 2: id 'open-file' stands twice, first in line 1",
    ),
    "unknown id in qrels": (
        lambda beir: edit(beir / "qrels" / "train.tsv", "open-file", "open-fil"),
        "train.tsv, line 2",
    ),
    "no relevant pair in a split": (
        lambda beir: (beir / "qrels" / "dev.tsv").write_text(
            "query-id\tcorpus-id\tscore\nq0\topen-file\t0\n"
        ),
        "dev",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_data_is_refused_with_file_and_line(cli, beir, tmp_path, small, how):
    spoil, said = BROKEN[how]
    spoil(beir)
    only_line(cli("train", "--data", beir, "-o", tmp_path / "run", *small), said)
    assert not (tmp_path / "run").exists()


def test_pairs_without_the_column_or_without_a_positive_are_refused(cli, tmp_path, small):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("question,answer\nhow,so\n")
    only_line(
        cli("train", "--data", pairs, *small), "no column 'anchor' or 'query'; columns are question, answer"
    )
    pairs.write_text("anchor,positive\nhow,so\nwhy,\n")
    only_line(cli("train", "--data", pairs, *small), "pairs.csv, line 3: the anchor has no positive")


def test_text_without_a_token_is_named(cli, beir, tmp_path, small):
    edit(beir / "queries.jsonl", "how do I open a socket", "???")
    ran = cli("train", "--data", beir, "-o", tmp_path / "run", *small)
    refused(ran, "query 'q2': no token in '???'", "encoder.keep_punctuation")


def test_data_without_a_train_split_cannot_be_trained_or_mined_on(cli, beir, trained, tmp_path, small):
    (beir / "qrels" / "train.tsv").unlink()
    said = "has no split 'train'; it has dev, test"
    refused(cli("train", "--data", beir, "-o", tmp_path / "run", *small), said)
    refused(cli("mine", trained, "--data", beir, "-o", tmp_path / "mined"), said)


def test_missing_split_of_an_evaluation_is_named(cli, trained):
    only_line(
        cli("eval", trained, "--set", "evaluation.split=tset"), "has no split 'tset'; it has train, dev, test"
    )


def test_nothing_that_names_data_is_refused(cli, trained, tmp_path):
    only_line(cli("train"), "nothing to train on: give a config, or --data FOLDER")
    model = (trained / "model").rename(tmp_path / "model")
    only_line(cli("eval", model), "no data named: give --data FOLDER")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.batchsize=3", "unknown key 'training.batchsize'; did you mean 'training.batch_size'?"),
        ("training.batch_size=many", "training.batch_size is 'many'; expected a valid integer"),
        ("training.lr=-1", "training.lr is -1; expected greater than 0"),
        ("training.num_negatives=9", "training.num_negatives 9 is more than mining.num_negatives 2"),
        ("method.name=simclrr", "method.name 'simclrr': no such method"),
        ("training.chunk_tokens=0", "training.chunk_tokens is 0; expected a whole number from 1"),
        ("training.graph_tokens=9", "--set training.graph_tokens=9: training: graph_tokens has no effect"),
    ],
)
def test_wrong_setting_is_refused_before_anything_is_read(cli, tmp_path, beir, small, setting, said):
    only_line(cli("train", "--data", beir, "-o", tmp_path / "run", *small, "--set", setting), said)
    assert not (tmp_path / "run").exists()


def test_batch_larger_than_the_data_and_unknown_metric_name_their_key(cli, beir, tmp_path, small):
    run = ("train", "--data", beir, "-o", tmp_path / "run", "--overwrite", *small)
    refused(cli(*run, "--set", "training.batch_size=4000"), "training.batch_size 4000; valid is 2 to 80")
    refused(
        cli(*run, "--set", "evaluation.metric=recall@11"),
        "evaluation.metric 'recall@11'",
        "did you mean 'recall@1",
    )


def test_setting_without_effect_in_the_command_is_refused(cli, trained):
    only_line(cli("eval", trained, "--set", "training.lr=1"), "'training' has no effect in `eval`")
    only_line(cli("index", trained, "--set", "mining.depth=5"), "'mining' has no effect in `index`")


def test_wrong_command_line_is_one_line(cli, trained):
    for arguments in (
        ("trian",),
        ("search", trained),
        ("search", trained, "x", "--mode", "fuzzy"),
        ("eval", "--foo"),
    ):
        only_line(cli(*arguments), "see --help")


def test_missing_model_is_refused(cli, tmp_path, data, trained):
    only_line(cli("eval", "./none", "--data", data), "./none")
    only_line(cli("eval", tmp_path, "--data", data), "no model in this folder")
    only_line(cli("eval", trained / "config.yaml", "--data", data), "a file; a model is a folder")
    only_line(cli("eval", trained / "index", "--data", data), "no model in this folder (it has a manifest")
    (trained / "model" / "modules.json").unlink()
    only_line(cli("eval", trained), "training has not finished: `retrieval-cl train ... --resume` goes on")


def test_same_model_twice_is_no_comparison(cli, trained):
    only_line(cli("eval", trained, "--against", trained), "the same model as the first")


def test_k_larger_than_the_corpus_gives_all_and_says_so(cli, trained):
    for mode in ("dense", "hybrid"):
        ran = cli("search", trained, "open file", "-k", 1000, "--json", "--mode", mode)
        assert ran.code == 0
        answer = json.loads(ran.out)
        assert len(answer["hits"]) == 48
        assert answer["note"] == "1000 hits asked for, the index holds 48 passages"
    ran = cli("search", trained, "open file", "-k", 1000)
    assert ran.line == "1000 hits asked for, the index holds 48 passages"


def test_words_that_stand_nowhere_find_nothing_and_say_so(cli, trained):
    ran = cli("search", trained, "zyx", "--mode", "bm25")
    assert (ran.code, ran.out) == (0, "nothing found\n")
    assert "0 of the 10 hits asked for: no further passage shares a word" in ran.line


def test_empty_query_and_impossible_k_are_refused(cli, trained):
    only_line(cli("search", trained, "  "), "the query is empty")
    only_line(cli("search", trained, "x", "-k", 0), "-k 0: expected at least 1")


def test_index_of_another_model_is_refused(cli, trained):
    weights = trained / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] += 1e-3
    save_file(tensors, weights)
    line = only_line(cli("search", trained, "open a file"), "made by another model than", "index again")
    assert str(trained / "index") in line
    assert cli("search", trained, "open a file", "--mode", "bm25").code == 0


def test_missing_model_of_an_index_is_refused(cli, trained):
    (trained / "model").rename(trained / "elsewhere")
    only_line(cli("search", trained, "open a file"), "its model is not at")
    ran = cli("search", trained, "open a file", "--model", trained / "elsewhere")
    assert ran.code == 0, ran.err


def test_half_written_index_is_refused(cli, trained, tmp_path):
    vectors = trained / "index" / "vectors.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-100])
    only_line(cli("search", trained, "x"), "vectors.npy", "half written")
    vectors.write_bytes(whole[:-1] + b"\x01")
    only_line(cli("search", trained, "x", "--verify"), "vectors.npy", "build the index anew")
    (trained / "index" / "manifest.json").unlink()
    only_line(cli("search", trained / "index", "x"), "no manifest.json; it is half written or no index")
    only_line(cli("search", tmp_path / "none", "x"), "no such folder; expected a folder with a index")


def test_index_without_words_cannot_be_searched_by_words(cli, trained):
    assert cli("index", trained, "--set", "index.lexical=false").code == 0
    only_line(cli("search", trained, "x", "--mode", "hybrid"), "the index holds no words")


def test_model_that_gives_nan_is_refused(cli, trained, tmp_path):
    weights = trained / "model" / "model.safetensors"
    tensors = {name: np.full_like(values, np.nan) for name, values in load_file(weights).items()}
    save_file(tensors, weights)
    refused(cli("index", trained, "-o", tmp_path / "index"), "the vector of passage row 0 is NaN or infinite")
    refused(cli("embed", trained, "open", "-o", tmp_path / "v.npy"), "NaN or infinite")
    assert not (tmp_path / "index").exists() and not (tmp_path / "v.npy").exists()


def test_zero_vector_is_refused_with_its_passage(cli, trained, tmp_path):
    (tmp_path / "notes.txt").write_text("open a file\n???\n")
    ran = cli("index", trained, "--corpus", tmp_path / "notes.txt", "-o", tmp_path / "index")
    refused(ran, "passage '2': its vector is zero (1 of 2 are)")
    assert not (tmp_path / "index").exists()


def test_texts_to_embed_are_checked(cli, trained, tmp_path):
    out = ("-o", tmp_path / "v.npy")
    only_line(cli("embed", trained, *out), "give texts or --file, one of them")
    only_line(cli("embed", trained, "a", "--file", "b.txt", *out), "give texts or --file, one of them")
    only_line(cli("embed", trained, " ", *out), "text 1 is empty")
    only_line(
        cli("embed", trained, "a", "-o", tmp_path / "v.csv"), "cannot write '.csv'; the endings are .npy"
    )
    only_line(cli("embed", trained, "--file", tmp_path / "none.txt", *out), "none.txt: no such file")
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "x"}\n{"_id": "1", "text": "y"}\n')
    only_line(cli("embed", trained, "--file", tmp_path / "a.jsonl", *out), "line 2: id '1' stands twice")
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    only_line(cli("embed", trained, "--file", tmp_path / "a.jsonl", *out), "line 1: no column 'text'", "body")
    (tmp_path / "a.xml").touch()
    only_line(
        cli("embed", trained, "--file", tmp_path / "a.xml", *out), "unknown kind of file; valid are .jsonl"
    )
    (tmp_path / "empty.txt").write_text("\n")
    only_line(cli("embed", trained, "--file", tmp_path / "empty.txt", *out), "empty.txt: no rows")
    assert not (tmp_path / "v.npy").exists()


def test_factory_that_faiss_refuses_is_one_line(cli, trained):
    pytest.importorskip("faiss")
    refused(cli("index", trained, "--set", "index.factory=Nonsense7"), "Nonsense7")


def test_traceback_is_shown_where_asked_for_anywhere_in_the_line(cli):
    ran = cli("search", "./none", "x", "--traceback")
    assert ran.code == 2 and "Traceback (most recent call last)" in ran.err
    assert ran.err.splitlines()[-1].startswith("error: none: no such folder")


def test_a_fault_of_ours_is_not_dressed_up(cli, trained, monkeypatch):
    monkeypatch.setattr("retrieval_cl.runs.search.Searcher.search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("search", trained, "x")

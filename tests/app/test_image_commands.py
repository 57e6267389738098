"""The commands on images: what they print, leave, and refuse in one line."""

import json

import pytest
from tiny_images import SMALL


@pytest.fixture
def images(image_run_once):
    return image_run_once / "colours"


def only_line(ran, *parts):
    assert ran.code == 2 and ran.out == "", ran.err
    assert ran.line.startswith("error: ")
    for part in parts:
        assert part in ran.line
    return ran.line


def test_search_by_id_prints_neighbours_and_writes_a_sheet(cli, image_run, tmp_path):
    ran = cli(
        "search", image_run, "test/red/0.png", "train/blue/1.png", "-k", 3, "--sheet", tmp_path / "s.html"
    )
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "> test/red/0.png" and len(lines) == 9
    assert "test/red/0.png" not in "".join(lines[1:4])
    assert ran.line == f"contact sheet: {tmp_path / 's.html'}"
    assert (tmp_path / "s.html").read_text().count("<img") == 8


def test_search_by_file_gives_json(cli, image_run, images):
    ran = cli("search", image_run, images / "test" / "red" / "0.png", "--json", "-k", 2)
    found = json.loads(ran.out)
    assert [hit["rank"] for hit in found[0]["hits"]] == [1, 2]
    assert found[0]["hits"][0]["id"] == "test/red/0.png"


def test_index_prints_what_to_do_next(cli, image_run, images, tmp_path):
    ran = cli("index", image_run, "--data", images, "-o", tmp_path / "index")
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"48 images in {tmp_path / 'index'}")
    assert ran.out.splitlines()[-1].endswith("IMAGE --sheet hits.html")


def test_eval_of_a_run_prints_tables_tests_and_protocol(cli, image_run):
    ran = cli("eval", image_run)
    assert ran.code == 0, ran.err
    for words in ("raw pixels", "knn_accuracy", "success@1", "p = ", "k 10, cosine", "eval-test"):
        assert words in ran.out, words
    assert (image_run / "eval-test" / "results.json").is_file()


def test_copies_prints_counts_and_names_the_page(cli, images, tmp_path):
    ran = cli("copies", images, "-o", tmp_path / "out", "--distance", 2, "--correlation", 0.999)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].split() == ["copies", "same", "pixels", "near", "copies", "too"]
    assert "of test, in train as well" in ran.out
    assert (tmp_path / "out" / "copies.html").is_file() and (tmp_path / "out" / "copies.json").is_file()


def test_help_of_copies_gives_examples(cli):
    assert "retrieval-cl copies photos/" in " ".join(cli("copies", "--help").out.split())


def test_copies_of_what_is_not_there_or_with_other_settings_are_refused(cli, images, tmp_path):
    only_line(cli("copies", images, "--set", "training.lr=1"), "'training' has no effect in `copies`")
    only_line(cli("copies", images, "--set", "augmentation.flip=0"), "'augmentation' has no effect")
    (tmp_path / "empty").mkdir()
    ran = cli("copies", tmp_path / "empty", "-o", tmp_path / "out")
    assert ran.code == 2 and "no image here" in ran.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_images_have_no_words(cli, image_run):
    for mode in ("bm25", "hybrid"):
        only_line(cli("search", image_run, "test/red/0.png", "--mode", mode), "holds images", "use dense")
    only_line(cli("index", image_run, "--set", "index.lexical=true"), "index.lexical has no effect on images")
    only_line(cli("index", image_run, "--corpus", "notes.txt"), "run is a model of images")


def test_wrong_file_is_one_line(cli, image_run, tmp_path):
    only_line(cli("search", image_run, "none.png"), "'none.png': no such file, and no image of")
    (tmp_path / "notes.txt").write_text("no image")
    only_line(cli("search", image_run, tmp_path / "notes.txt"), "notes.txt: no readable image")


def test_sheet_needs_images_and_an_ending_it_can_write(cli, trained, image_run, tmp_path):
    sheet = ("--sheet", tmp_path / "s.html")
    only_line(cli("search", trained, "open file", *sheet), "has no effect", "holds texts")
    only_line(cli("search", image_run, "x", "--sheet", tmp_path / "s.gif"), "ends in .html or .png")


def test_settings_without_effect_on_images_are_refused(cli, image_run):
    only_line(cli("eval", image_run, "--set", "index.lexical=false"), "'index' has no effect in `eval`")
    only_line(cli("index", image_run, "--set", "augmentation.flip=0"), "'augmentation' has no effect")


def test_model_of_texts_is_no_match_for_one_of_images(cli, trained, image_run):
    only_line(cli("eval", image_run, "--against", trained), "a model of texts, the first is one of images")
    only_line(cli("eval", trained, "--against", image_run), "a model of images, the first is one of texts")


def test_commands_on_texts_refuse_a_model_of_images(cli, image_run):
    only_line(cli("mine", image_run), "a model of images; this command takes one of texts")
    only_line(cli("embed", image_run, "words", "-o", image_run / "v.npy"), "image_run/run/model")


@pytest.mark.parametrize(
    ("method", "data", "said"),
    [
        ("dual_encoder", "digits", "method 'dual_encoder' takes texts, source.kind 'digits' gives images"),
        ("simclr", "pydoc", "method 'simclr' takes images, source.kind 'pydoc' gives texts"),
        ("byol", "pydoc", "method 'byol' takes images"),
    ],
)
def test_method_that_does_not_take_what_the_source_gives_is_one_line(cli, tmp_path, method, data, said):
    settings = ("--set", f"method.name={method}", "--set", f"source.kind={data}")
    only_line(cli("train", *settings, "-o", tmp_path / "run"), f"--set method.name={method}: {said}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_prints_numbers_and_protocol_and_leaves_the_page_it_names(cli, images, tmp_path):
    small = [one for setting in SMALL for one in ("--set", setting)]
    ran = cli("train", "--data", images, "-o", tmp_path / "run", *small)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].startswith("knn_accuracy") and "k 10, cosine" in ran.out
    assert "report.html" in ran.out and (tmp_path / "run" / "report.html").is_file()
    again = cli("train", tmp_path / "run", "--resume")
    assert again.code == 0, again.err

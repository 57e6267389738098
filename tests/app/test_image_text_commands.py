"""The commands on models of images with texts: what they print, leave, and refuse in one line."""

import json

import pytest
from PIL import Image
from tiny_clip import write_photos


def only_line(ran, *parts):
    assert ran.code == 2 and ran.out == "", ran.err
    assert ran.line.startswith("error: ")
    for part in parts:
        assert part in ran.line


@pytest.fixture
def run(clip_run_once):
    return clip_run_once / "run"


@pytest.fixture
def images(clip_run_once):
    return clip_run_once / "images.index"


@pytest.fixture
def captions(clip_run_once):
    return clip_run_once / "captions.index"


def test_index_of_photos_is_searched_by_words_and_by_a_photo_with_a_sheet(cli, run, tmp_path):
    photos = write_photos(tmp_path / "photos")
    ran = cli("index", run, "--data", photos, "-o", tmp_path / "photos.index", "--copy-model")
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"3 images in {tmp_path / 'photos.index'} (")
    assert ran.out.splitlines()[-1].endswith('"words, or an image file" --sheet hits.html')
    asked = ("a bold handwritten seven", photos / "1.png")
    ran = cli("search", tmp_path / "photos.index", *asked, "-k", 2, "--sheet", tmp_path / "hits.png")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "> a bold handwritten seven" and lines[4] == f"> {photos / '1.png'}"
    assert lines[5].endswith("1.png") and ran.line == f"contact sheet: {tmp_path / 'hits.png'}"
    assert Image.open(tmp_path / "hits.png").width == 3 * (96 + 8) + 8


def test_index_of_captions_says_how_words_are_weighed(cli, run, tmp_path):
    ran = cli("index", run, "--what", "captions", "-o", tmp_path / "captions.index")
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"80 captions in {tmp_path / 'captions.index'}, BM25 with k1 0.9")


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_captions_are_found_by_words_in_every_mode(cli, captions, mode):
    ran = cli("search", captions, "a bold handwritten seven", "--mode", mode, "--json", "-k", 1)
    assert ran.code == 0, ran.err
    (found,) = json.loads(ran.out)
    assert (found["mode"], found["asked_by"]) == (mode, "text")
    assert found["hits"][0]["text"] == "a bold handwritten seven"


def test_wrong_queries_and_modes_are_one_line(cli, images, captions, tmp_path):
    only_line(cli("search", images, "none.png"), "'none.png': no such file, and no image of")
    only_line(cli("search", captions, "none.png"), "'none.png': no such file")
    only_line(
        cli("search", images, "seven", "--mode", "bm25"), "holds images, which have no words; use dense"
    )
    only_line(cli("search", images, "seven", "--sheet", tmp_path / "s.gif"), "ends in .html or .png")
    only_line(cli("search", images, " "), "the query is empty")


def test_settings_without_effect_are_one_line(cli, run, image_run, trained, tmp_path):
    out = ("-o", tmp_path / "x.index")
    only_line(cli("index", trained, "--what", "images", *out), "index.what: images has no effect: run is a")
    only_line(cli("index", image_run, "--what", "captions", *out), "a model of images alone; remove it")
    only_line(cli("index", run, "--set", "index.k1=1", *out), "index.k1 has no effect on images")
    only_line(cli("index", run, "--corpus", "notes.txt", *out), "a model of images with texts; use --data")
    assert not (tmp_path / "x.index").exists()


def test_search_by_a_model_of_another_kind_is_one_line(cli, images, trained):
    ran = cli("search", images, "seven", "--model", trained)
    assert ran.code == 2 and len(ran.err.splitlines()) == 1, ran.err


def test_help_says_that_images_are_searched_by_words(cli):
    said = " ".join(cli("search", "--help").out.split())
    assert 'photos.index "a dog on a beach" boat.jpg' in said
    assert "--what captions" in " ".join(cli("index", "--help").out.split())


def test_embed_and_mine_take_models_of_texts_alone(cli, clip_run):
    run = str(clip_run / "run")
    for command in (["embed", run, "three"], ["mine", run]):
        only_line(cli(*command), "a model of images with texts; this command takes one of texts")

"""Indexes of a model of images with texts: images or captions, its own data or photos; what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_clip import write_photos

from retrieval_cl.config import load_image_text_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.runs.image_text_contents import names_captions, what_to_index
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import find_index
from retrieval_cl.runs.stories import index_story
from retrieval_cl.sources.image_text.load import load_image_text


@pytest.fixture(scope="module")
def data(clip_run_once):
    return load_image_text(load_image_text_config(clip_run_once / "run" / "config.yaml").source)


@pytest.fixture(scope="module")
def encoder(clip_run_once):
    return load_image_text_encoder(clip_run_once / "run" / "model")


@pytest.fixture
def index(clip_run_once, tmp_path):
    """Indexes what is named with the run's model; returns the opened index and what was said."""

    def make(*overrides, data=None, config=None, model=clip_run_once / "run", corpus=None, **options):
        story = index_story(
            find_model(str(model)),
            config=config,
            overrides=overrides,
            data=None if data is None else str(data),
            corpus=corpus,
        )
        said = []
        options = {"copy_model": False, "progress": None} | options
        done = story(output=tmp_path / "made.index", say=said.append, **options)
        return find_index(done.folder), "\n".join([*said, done.faiss or ""])

    return make


@pytest.fixture
def table(tmp_path):
    """Four photos and a table of their captions; of one no token is known, and two have the same words."""
    photos = write_photos(tmp_path / "captioned", [(9, 9)] * 4)
    lines = ["image,caption", "0.png,a bold seven", "1.png,a light two", "2.png,猫", "3.png,A bold  seven"]
    (photos / "table.csv").write_text("\n".join(lines) + "\n")
    return photos / "table.csv"


def test_index_of_images_holds_vectors_captions_and_pictures_of_all_splits(clip_run_once, data, encoder):
    opened = find_index(clip_run_once / "images.index", check_hashes=True)
    assert opened.holds_images and opened.takes_images and opened.embeds == "image_text"
    assert len(opened) == len(data.images) == len(opened.thumbnails) == 1797
    assert np.array_equal(opened.vectors, encoder.encode_images(data.images))
    for row, shown in zip((0, 900, 1796), opened.passages([0, 900, 1796]), strict=True):
        captions = [data.captions[place] for place in data.captions_of(np.array([row]))]
        assert (shown.id, shown.title, shown.text.split("\n")) == (data.ids[row], captions[0], captions)
    shown = np.asarray(Image.open(io.BytesIO(opened.thumbnails.take([5])[0])).convert("RGB"))
    wanted = data.images.take(np.array([5]))[0].permute(1, 2, 0).numpy()
    assert np.abs(shown.astype(int) - wanted).mean() < 12


def test_index_of_captions_holds_each_text_once_and_names_its_images(clip_run_once, data, encoder):
    opened = find_index(clip_run_once / "captions.index", check_hashes=True)
    assert not opened.holds_images and opened.takes_images and opened.has_words
    shown = opened.passages(range(len(opened)))
    assert sorted(one.text for one in shown) == sorted(set(data.captions))
    assert np.allclose(opened.vectors, encoder.encode_texts([one.text for one in shown]), atol=1e-6)
    for one in shown:
        images = [
            data.ids[image]
            for image, caption in zip(data.caption_images.tolist(), data.captions, strict=True)
            if caption == one.text
        ]
        assert one.title == (f"{images[0]} and {len(images) - 1} more" if len(images) > 1 else images[0])
        name, _, number = one.id.rpartition("#")
        row = list(data.ids).index(name)
        assert data.captions[data.captions_of(np.array([row]))[int(number)]] == one.text


def test_progress_counts_images_and_captions(index, table):
    seen = []
    index(data=table, progress=lambda now, every: seen.append((now, every)))
    assert seen[-1] == (4, 4)
    index("index.what=captions", data=table, progress=lambda now, every: seen.append((now, every)))
    assert seen[-1] == (3, 3)


def test_photos_of_several_sizes_are_fitted_to_squares_and_indexed(index, encoder, tmp_path):
    photos = write_photos(tmp_path / "photos", [(200, 100), (100, 200), (120, 150)])
    opened, said = index(data=photos)
    assert "images are fitted to squares of 96 pixels: crop" in said
    assert [one.id for one in opened.passages(range(3))] == ["0.png", "1.png", "2.png"]
    assert {one.title for one in opened.passages(range(3))} == {""}
    assert np.allclose(np.linalg.norm(opened.vectors, axis=1), 1, atol=1e-5)
    assert Image.open(io.BytesIO(opened.thumbnails.take([0])[0])).size == (96, 96)
    assert opened.manifest["made_by"]["size"] == 96 and encoder.fit == "crop"


def test_photos_of_one_large_size_are_fitted_before_they_fill_the_memory(index, tmp_path):
    photos = write_photos(tmp_path / "photos", [(400, 300)] * 2)
    opened, said = index("source.memory_gb=0.0001", data=photos)
    assert len(opened) == 2 and "squares of 96 pixels" in said


def test_small_images_of_one_size_stay_as_they_are(index, tmp_path):
    photos = write_photos(tmp_path / "photos", [(20, 14)] * 2)
    opened, said = index(data=photos)
    assert "fitted" not in said and opened.manifest["made_by"]["size"] is None
    assert Image.open(io.BytesIO(opened.thumbnails.take([0])[0])).size == (20, 14)


def test_images_of_folders_npz_and_digits_are_indexed_with_their_classes(index, image_run_once, tmp_path):
    opened, _ = index(data=image_run_once / "colours")
    assert opened.passages([opened.row_of("train/red/3.png")])[0].title == "red"
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    opened, _ = index(data=tmp_path / "x.npz")
    assert len(opened) == 4
    opened, _ = index("source.kind=digits")
    assert opened.passages([3])[0].title == "3" and opened.passages([3])[0].text == ""


def test_other_images_are_fitted_as_those_of_the_run_were(clip_run, tmp_path):
    config = clip_run / "run" / "config.yaml"
    config.write_text(config.read_text().replace("source:\n", "source:\n  size: 16\n  fit: pad\n"))
    photos = str(write_photos(tmp_path / "photos"))
    model = find_model(str(clip_run / "run"))
    found = what_to_index(model, config=None, overrides=["index.factory=Flat"], data=photos)
    assert (found.source.size, found.source.fit, found.index.factory) == (16, "pad", "Flat")
    given = what_to_index(model, config=None, overrides=["source.size=9"], data=photos)
    assert (given.source.size, given.source.fit) == (9, "crop")


def test_settings_of_the_index_come_from_the_run_for_photos_too(clip_run, tmp_path):
    config = clip_run / "run" / "config.yaml"
    config.write_text(config.read_text() + "index:\n  factory: Flat\n  recall_k: 3\n")
    model = find_model(str(clip_run / "run"))
    photos = str(write_photos(tmp_path / "photos"))
    found = what_to_index(model, config=None, overrides=["index.recall_k=4"], data=photos)
    assert (found.index.factory, found.index.recall_k) == ("Flat", 4)


def test_config_of_images_alone_names_photos(clip_run_once, tmp_path):
    photos = write_photos(tmp_path / "photos")
    (tmp_path / "photos.yaml").write_text(f"source:\n  kind: image_folder\n  path: {photos}\n  size: 12\n")
    model = find_model(str(clip_run_once / "run"))
    found = what_to_index(model, config=tmp_path / "photos.yaml", overrides=[], data=None)
    assert (found.source.kind, found.source.size) == ("image_folder", 12)


def test_captions_of_which_no_token_is_known_are_left_out(index, table):
    opened, said = index("index.what=captions", data=table)
    assert "left out: 1 captions of which the model knows no token, such as '猫'" in said
    shown = {one.text: one.title for one in opened.passages(range(len(opened)))}
    assert shown == {"a bold seven": "0.png and 1 more", "a light two": "1.png"}
    assert opened.vectors.any(axis=1).all()
    table.write_text("image,caption\n0.png,猫\n")
    with pytest.raises(InputError, match="knows no token, such as '猫': these are all of them"):
        index("index.what=captions", data=table)


def test_faiss_is_measured_by_what_the_index_is_asked_by(index, table, tmp_path):
    opened, said = index("index.factory=HNSW16", "index.target_recall=0.9")
    recall = opened.manifest["faiss"]["recall"]
    # The distinct captions of the digits.
    assert (recall["queries"], recall["num_queries"]) == ("given", 80)
    assert "HNSW16" in said and recall["mean"] >= 0.9
    opened, _ = index("index.factory=Flat", "index.what=captions", data=table)
    recall = opened.manifest["faiss"]["recall"]
    assert (recall["queries"], recall["num_queries"], len(opened)) == ("given", 4, 2)
    opened, _ = index("index.factory=Flat", data=write_photos(tmp_path / "photos"))
    assert opened.manifest["faiss"]["recall"]["queries"] == "corpus"


def test_index_with_a_copy_of_its_model_travels_alone(index, clip_run, table, tmp_path):
    opened, _ = index(data=table, model=clip_run / "run", copy_model=True)
    (clip_run / "run").rename(tmp_path / "gone")
    moved = find_index(opened.folder.rename(tmp_path / "moved"), check_hashes=True)
    assert moved.encoder_path == tmp_path / "moved" / "encoder"
    assert load_image_text_encoder(moved.encoder_path).fingerprint() == moved.manifest["fingerprint"]


def test_captions_where_there_are_none_are_refused(index, tmp_path):
    photos = write_photos(tmp_path / "photos")
    with pytest.raises(InputError, match=r"index\.what: captions: 'photos' is of images without captions"):
        index("index.what=captions", data=photos)


@pytest.mark.parametrize("setting", ["lexical=true", "k1=1.2", "b=0.5"])
def test_settings_of_words_are_refused_for_images_and_taken_for_captions(index, table, setting):
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"index\.{key} has no effect on images"):
        index(f"index.{setting}", data=table)
    opened, _ = index(f"index.{setting}", "index.what=captions", data=table)
    assert opened.has_words


def test_captions_without_words_have_no_bm25(index, table):
    opened, _ = index("index.lexical=false", "index.what=captions", data=table)
    assert not opened.has_words and opened.manifest["made_by"]["bm25"] is None


def test_choice_between_images_and_captions_is_refused_for_other_models(index, image_run_once):
    with pytest.raises(
        InputError, match=r"index\.what: images has no effect: run is a model of images alone"
    ):
        index("index.what=images", model=image_run_once / "run")


def test_corpus_of_texts_and_a_folder_with_other_things_are_refused(index, tmp_path):
    with pytest.raises(InputError, match=r"--corpus notes\.txt: run is a model of images with texts"):
        index(corpus=Path("notes.txt"))
    (tmp_path / "made.index").mkdir()
    (tmp_path / "made.index" / "notes.txt").write_text("kept")
    with pytest.raises(InputError, match="holds something else than an index"):
        index()
    assert (tmp_path / "made.index" / "notes.txt").read_text() == "kept"


def test_captions_are_looked_for_where_they_can_be(tmp_path):
    import pyarrow
    import pyarrow.parquet

    for name in ("photos", "packed", "packed_alone", "shards"):
        (tmp_path / name).mkdir()
    for name in ("packed/x.npz", "packed/captions.jsonl.gz", "packed_alone/x.npz", "shards/0.tar", "t.csv"):
        (tmp_path / name).touch()
    for name, columns in (("with", ("image", "text")), ("without", ("image", "label"))):
        table = pyarrow.table({column: ["x"] for column in columns})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    found = {
        name: names_captions(str(tmp_path / name))
        for name in (
            *("photos", "packed", "packed/x.npz", "packed_alone", "shards", "t.csv"),
            *("with.parquet", "without.parquet"),
        )
    }
    with_captions = {"packed", "packed/x.npz", "shards", "t.csv", "with.parquet"}
    assert found == {name: name in with_captions for name in found}
    assert names_captions("digits") and names_captions("someone/flickr")


def test_manifest_says_where_the_images_come_from(clip_run_once):
    manifest = json.loads((clip_run_once / "images.index" / "manifest.json").read_text())
    assert (manifest["modality"], manifest["embeds"]) == ("images", "image_text")
    assert manifest["made_by"]["data"] == "caption_digits"
    assert manifest["made_by"]["source"]["source"] == "caption_digits"

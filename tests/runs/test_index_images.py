"""An index of images: what it holds, that it travels with its model, and what it refuses."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.config import load_image_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.runs.index_images import index_images
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.search import find_index
from retrieval_cl.sources.images.load import load_images


@pytest.fixture
def index(image_run, image_run_once, tmp_path):
    """Indexes the tiny images, or others, with the run's model."""

    def make(*settings, data=image_run_once / "colours", **options):
        config = load_image_config(None, settings, data=str(data))
        return index_images(config, find_model(str(image_run)), output=tmp_path / "index", **options)

    return make


def test_index_holds_vectors_ids_classes_and_pictures_of_all_splits(image_run, image_run_once):
    opened = find_index(image_run)
    data = load_images(load_image_config(None, data=str(image_run_once / "colours")).source)
    assert opened.holds_images and len(opened) == 48 == len(opened.thumbnails)
    assert [one.id for one in opened.passages(range(48))] == list(data.ids)
    row = opened.row_of("train/red/3.png")
    assert opened.passages([row])[0].title == "red"
    vectors = load_image_encoder(image_run / "model").encode(data.images)
    assert np.array_equal(opened.vectors, vectors)
    shown = np.asarray(Image.open(io.BytesIO(opened.thumbnails.take([row])[0])).convert("RGB"))
    assert shown.shape == (10, 12, 3)
    assert np.abs(shown.mean(axis=(0, 1)) - [200, 40, 40]).max() < 15


def test_progress_counts_images(index):
    seen = []
    done = index(progress=lambda now, all_of_them: seen.append((now, all_of_them)))
    assert seen[-1] == (48, 48)
    assert (done.num_passages, done.what, done.words) == (48, "images", None)


def test_index_with_a_copy_of_its_model_travels_alone(index, image_run, tmp_path):
    done = index(copy_model=True)
    image_run.rename(tmp_path / "gone")
    moved = done.folder.rename(tmp_path / "moved")
    opened = find_index(moved, check_hashes=True)
    assert opened.encoder_path == moved / "encoder"
    assert load_image_encoder(opened.encoder_path).fingerprint() == opened.manifest["fingerprint"]


def test_index_of_images_without_classes_has_no_titles(index, tmp_path):
    (tmp_path / "flat").mkdir()
    for place in range(3):
        Image.new("RGB", (9, 9), (80 * place, 0, 0)).save(tmp_path / "flat" / f"{place}.png")
    done = index("source.test_share=0", data=tmp_path / "flat")
    assert {one.title for one in find_index(done.folder).passages(range(3))} == {""}


@pytest.mark.parametrize("setting", ["lexical=true", "k1=1.2", "b=0.5"])
def test_settings_of_words_are_refused(index, setting):
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"index\.{key} has no effect on images"):
        index(f"index.{setting}")


def test_manifest_says_where_the_images_come_from(index, image_run_once):
    manifest = json.loads((index().folder / "manifest.json").read_text())
    assert manifest["modality"] == "images" and manifest["made_by"]["data"] == "colours"
    assert manifest["made_by"]["source"]["path"] == str(image_run_once / "colours")

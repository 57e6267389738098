"""The story of an image run: what it leaves, that it goes on in the same bits, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_images import SMALL

from retrieval_cl.config import load_any_config, load_image_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.train_images import train_images

METHODS = {
    "simclr": (),
    "moco": ("method.queue=32",),
    "byol": ("method.predictor={preset: byol, hidden: 8}",),
}
NUMBERS = ("knn_accuracy", "linear_accuracy", "raw_pixel_knn_accuracy", "random_encoder_knn_accuracy")


class Killed(Exception):
    """A process that dies."""


class KillAt:
    """Dies when a step is shown, before its checkpoint."""

    def __init__(self, step):
        self.step = step

    def show(self, status):
        if status.step == self.step:
            raise Killed

    def close(self):
        pass


@pytest.fixture
def folder(image_run_once):
    return image_run_once / "colours"


@pytest.fixture
def run(folder, tmp_path):
    """Trains on a folder of images, by default the tiny one, into `name` below tmp_path."""

    def train(name, *more, method="simclr", data=folder, **options):
        settings = [*SMALL, f"method.name={method}", *METHODS[method], f"output={tmp_path / name}"]
        settings += more
        return train_images(load_image_config(None, settings, data=str(data)), **options)

    return train


def results(done):
    return json.loads((done.folder / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_run_goes_on_in_the_same_bits(run, method):
    plain = "evaluation.linear=false"
    whole = run("whole", plain, method=method)
    with pytest.raises(Killed):
        run("killed", plain, method=method, display=KillAt(2))
    assert not (whole.folder.with_name("killed") / "model").exists()
    again = run("killed", plain, method=method, resume=True)
    for file in ("model/model.safetensors", "model/config.json"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    ours, theirs = results(again), results(whole)
    assert ours["intervals"] == theirs["intervals"] and "linear_accuracy" not in ours
    assert ours["steps"] == ours["kept_step"] == 3


@pytest.mark.slow
def test_run_on_digits_leaves_each_number_with_its_warped_twin_and_its_protocol(tmp_path):
    config = load_image_config(None, [*SMALL, f"output={tmp_path / 'run'}"], data="digits")
    done = train_images(config, command="retrieval-cl train x")
    found = results(done)
    names = [name + ending for name in NUMBERS for ending in ("", "_warped")]
    assert found["intervals"].keys() == set(names)
    for name in names:
        low, high = found["intervals"][name]
        assert 0 <= low <= found[name] <= high <= 1, name
    assert (found["num_train_images"], found["num_test_images"]) == (1257, 540)
    # Of seed 0; the means of three seeds are 0.976 and 0.770.
    assert found["raw_pixel_knn_accuracy"] == pytest.approx(0.981, abs=0.002)
    assert found["raw_pixel_knn_accuracy_warped"] == pytest.approx(0.793, abs=0.002)
    assert "k 10, cosine" in found["protocol"]["knn"]
    assert found["protocol"]["classified"] == "540 images of split test"
    assert found["machine"] and found["command"] == "retrieval-cl train x"
    assert {one["than"] for one in found["comparisons"]} == {
        name + ending for name in NUMBERS[2:] for ending in ("", "_warped")
    }
    for name in names:
        assert name in done.text()
    assert "warped kNN accuracy" in (done.folder / "report.html").read_text()


@pytest.mark.slow
def test_warped_run_gives_plain_and_warped_numbers_of_the_same_names(tmp_path):
    plain = load_image_config(None, [*SMALL, "training.steps=1"], data="digits")
    one = train_images(plain.model_copy(update={"output": str(tmp_path / "plain")}))
    warped = plain.model_copy(update={"output": str(tmp_path / "warped")})
    source = plain.source.model_copy(update={"warped": True})
    two = train_images(warped.model_copy(update={"source": source}))
    for ending in ("", "_warped"):
        name = f"raw_pixel_knn_accuracy{ending}"
        assert results(one)[name] == results(two)[name]
    for done in (one, two):
        assert "retrieval-cl copies digits<" in (done.folder / "report.html").read_text()


def test_results_have_every_number_with_its_interval_and_protocol(image_run):
    found = json.loads((image_run / "results.json").read_text())
    assert found["intervals"].keys() == set(NUMBERS)
    for name in NUMBERS:
        low, high = found["intervals"][name]
        assert 0 <= low <= found[name] <= high <= 1, name
    assert (found["num_train_images"], found["num_test_images"], found["steps"]) == (32, 16, 3)
    assert found["dev"].keys() == {"knn_accuracy", "success@1"}
    # Four colours are told apart by their pixels.
    assert found["raw_pixel_knn_accuracy"] == 1.0
    assert "k 10, cosine" in found["protocol"]["knn"]
    assert found["protocol"]["classified"] == "16 images of split test"


def test_config_and_model_that_a_run_leaves_load_again(image_run):
    loaded = load_any_config(image_run / "config.yaml")
    found = json.loads((image_run / "results.json").read_text())
    assert loaded.method.name == "simclr" and loaded.encoder.width == 8
    assert found["settings"] == loaded.model_dump(mode="json")
    model = find_model(str(image_run))
    assert (model.embeds, model.name, model.run) == ("images", "run", image_run)
    assert load_image_encoder(image_run / "model").dim == found["dim"]


def test_report_shows_numbers_curves_neighbours_and_where_it_comes_from(image_run):
    page = (image_run / "report.html").read_text()
    assert page.count("<svg") == 3
    # 8 of the 16 test images before 8 neighbours each.
    assert page.count("<img") == 8 * 9
    assert 'class="shot right"' in page
    for words in ("Raw pixels", "Before training", "cosine", "retrieval-cl train my.yaml", "cores"):
        assert words in page, words


@pytest.mark.slow
def test_images_without_classes_are_trained_on_and_shown_but_not_measured(run, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    draw = np.random.default_rng(0)
    for place in range(30):
        Image.fromarray(draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(flat / f"{place}.png")
    done = run("run", data=flat)
    assert "nothing was measured" in done.text() and not results(done).keys() & set(NUMBERS)
    page = (done.folder / "report.html").read_text()
    assert page.count("<img") == 8 * 9 and 'class="shot right"' not in page


@pytest.mark.slow
def test_images_of_one_class_are_trained_on_but_not_measured(run, folder, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(folder / split / "red", tmp_path / "one" / split / "red")
    done = run("run", "training.batch_size=4", data=tmp_path / "one")
    assert "nothing was measured" in done.text()


@pytest.mark.slow
def test_copies_are_counted_for_the_reader(run, folder, tmp_path):
    for place in (0, 1):
        pixels = (folder / f"train/red/{place}.png").read_bytes()
        target = tmp_path / "again" / "train" / "red" / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(pixels)
        target.with_name(f"copy-{place}.png").write_bytes(pixels)
    for name in ("green", "blue"):
        shutil.copytree(folder / "train" / name, tmp_path / "again" / "train" / name)
    shutil.copytree(folder / "test", tmp_path / "again" / "test")
    said = []
    done = run("run", data=tmp_path / "again", say=said.append)
    assert said[0].endswith("; 2 are copies of others")
    assert "2 in train" in (done.folder / "report.html").read_text()


@pytest.mark.slow
def test_mined_run_tells_what_mining_did(run):
    done = run(
        "run",
        "training.rounds=2",
        "training.num_negatives=2",
        "mining.num_negatives=2",
        "mining.relative_margin=null",
        "training.steps=4",
    )
    assert [one.round for one in done.run.rounds] == [1]
    assert done.run.rounds[0].counts.num_queries == 32
    assert "What mining did" in (done.folder / "report.html").read_text()


def test_folder_that_holds_a_run_is_not_written_over(image_run, run):
    output = f"output={image_run}"
    with pytest.raises(InputError, match="holds a run already"):
        run("run", output)
    with pytest.raises(InputError, match=r"started with augmentation\.preset 'digits', now it is"):
        run("run", "augmentation.preset=simclr_cifar", output, resume=True)


@pytest.mark.slow
def test_missing_split_is_refused_only_where_it_was_asked_for(run, folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "train_only" / "train")
    some = ("source.test_share=0", "training.steps=1")
    assert "nothing was measured" in run("run", *some, data=tmp_path / "train_only").text()
    with pytest.raises(InputError, match="has no split 'test'; it has train"):
        run("other", *some, "evaluation.split=test", data=tmp_path / "train_only")
    assert not (tmp_path / "other").exists()


def test_images_without_a_train_split_are_refused(run, folder, tmp_path):
    shutil.copytree(folder / "test", tmp_path / "test_only" / "test")
    with pytest.raises(InputError, match="has no split 'train'; it has test"):
        run("run", data=tmp_path / "test_only")


def test_batch_larger_than_the_images_names_its_key(run):
    with pytest.raises(InputError, match=r"training\.batch_size 64; valid is 2 to 32"):
        run("run", "training.batch_size=64")

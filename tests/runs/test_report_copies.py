"""The report on copies: planted ones are found, within a split and between two, and told by their ids."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.runs.report_copies import report_copies
from retrieval_cl.sources.images.config import ImageSourceConfig


def smooth(seed, size=48):
    """An image of large patches: what a photo is to a hash."""
    draw = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(draw).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """Ten photos of train, three of test, with three copies of the same pixels and three near ones."""
    for split, seeds in (("train", range(10)), ("test", range(10, 13))):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for seed in seeds:
            smooth(seed).save(tmp_path / "photos" / split / f"{seed:02}.png")
    train, test = tmp_path / "photos" / "train", tmp_path / "photos" / "test"
    for name in ("same-a", "same-b"):
        shutil.copy(train / "03.png", train / f"{name}.png")
    shutil.copy(train / "04.png", test / "leak.png")
    smooth(5).save(train / "near.jpg", quality=70)
    smooth(6).save(test / "near-leak.jpg", quality=70)
    smooth(11).save(test / "near.jpg", quality=70)
    return tmp_path / "photos"


@pytest.fixture
def found(photos, tmp_path):
    config = ImageSourceConfig(kind="image_folder", path=str(photos))
    return report_copies(config, output=tmp_path / "out", max_distance=8, min_correlation=0.95)


def test_planted_copies_are_counted_within_splits_and_between_them(found):
    assert found.within == {"train": (2, 3), "test": (0, 1)}
    # The train image that a test image repeats is counted although training leaves it out.
    assert found.between == {("train", "test"): (1, 2)}
    assert len(found.splits["train"]) == 13
    assert found.text().splitlines()[1].split() == ["in", "train", "2", "3"]
    assert found.text().splitlines()[3].split() == ["of", "test,", "in", "train", "as", "well", "1", "2"]


def test_every_copy_is_told_once_by_its_id(found):
    told = json.loads((found.folder / "copies.json").read_text())
    assert told["same_pixels"] == [["train/03.png", f"train/same-{one}.png"] for one in "ab"]
    assert sorted(map(set, told["near"]), key=sorted) == [
        {"test/11.png", "test/near.jpg"},
        {"train/05.png", "train/near.jpg"},
    ]
    assert told["between"][0]["pairs"] == [
        ["train/04.png", "test/leak.png", True],
        ["train/06.png", "test/near-leak.jpg", False],
    ]
    assert told["left_out_of_train"] == 1 and told["splits"] == {"train": 13, "test": 6}


def test_page_shows_each_pair_and_the_verdict(found):
    page = (found.folder / "copies.html").read_text()
    assert page.count("<img") == 2 * (2 + 2 + 2)
    assert "2 held-out images are copies of images in another split" in page
    assert ">train/04.png<" in page and ">test/leak.png<" in page


def test_a_thousand_of_one_image_are_no_half_million_of_pairs(tmp_path):
    pixels = np.zeros((1000, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "same.npz", images=pixels)
    config = ImageSourceConfig(kind="image_npz", path=str(tmp_path / "same.npz"), test_share=0.0)
    one = report_copies(config, output=tmp_path / "out", max_distance=8, min_correlation=0.95)
    assert one.within == {"train": (999, 999)} and len(one.copies.near) == 0


def test_near_copies_of_very_small_images_come_with_a_warning(tmp_path):
    config = ImageSourceConfig(kind="digits")
    one = report_copies(config, output=tmp_path, max_distance=0, min_correlation=1.0)
    assert "images of 8x8 are so small that unlike ones look alike" in one.text()
    assert one.within["train"][0] == 0


def test_near_copies_that_nobody_should_trust_are_no_verdict(tmp_path):
    config = ImageSourceConfig(kind="digits")
    one = report_copies(config, output=tmp_path, max_distance=8, min_correlation=0.9)
    assert one.between["train", "test"][1] > one.between["train", "test"][0] == 0
    page = (tmp_path / "copies.html").read_text()
    assert "No image was found in two splits." in page and "do not trust near copies." in page
    assert "is memory" not in page and "more look like one" not in page


def test_two_blue_skies_with_different_birds_are_no_copies(tmp_path):
    pixels = np.full((2, 64, 64, 3), (60, 120, 200), np.uint8)
    pixels[0, 8:16, 8:16] = pixels[1, 44:52, 40:48] = (40, 100, 180)
    np.savez(tmp_path / "skies.npz", images=pixels)
    config = ImageSourceConfig(kind="image_npz", path=str(tmp_path / "skies.npz"), test_share=0.0)
    one = report_copies(config, output=tmp_path / "out", max_distance=16, min_correlation=0.95)
    assert one.within == {"train": (0, 0)}

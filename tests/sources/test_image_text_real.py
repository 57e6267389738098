"""Real images with captions: Flickr8k and fashion products; skipped where they are not at hand."""

import numpy as np
import pytest
from image_text_files import load


@pytest.mark.parametrize("stream", [False, True])
def test_flickr8k_has_five_captions_an_image_and_its_official_splits(shared_data, stream):
    data = load(
        "image_text_npz", shared_data("flickr8k"), size=32, fit="pad", max_broken=0, stream=stream, workers=1
    )
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 753, "dev": 113, "test": 125}
    assert np.bincount(data.caption_images).tolist() == [5] * 991
    assert data.ids[0] == "1000268201_693b08cb0e.jpg"
    assert data.captions[1] == "A girl going into a wooden building ."
    assert data.made_by["images_without_split"] == 9 and data.made_by["rows_without_image"] == 7092
    assert data.made_by["shared_captions"]["test in train"] == 0
    # Photos of several sizes are all brought to one.
    assert data.images.take(np.array([0, 990])).shape == (2, 3, 32, 32)


def test_flickr8k_without_a_size_is_refused_with_the_setting(shared_data):
    with pytest.raises(ValueError, match=r"pixels, others .*; set source\.size"):
        load("image_text_npz", shared_data("flickr8k"), workers=1)


@pytest.mark.slow
def test_fashion_products_have_one_caption_each_and_no_caption_in_both_splits(shared_data, tmp_path):
    data = load(
        "image_text_npz",
        shared_data("fashion_products"),
        label_column="attributes.0",
        size=32,
        max_broken=0,
        test_share=None,
        cache_dir=str(tmp_path),
    )
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 27_025, "test": 2_975}
    assert len(data.captions) == 30_000 and len(set(data.captions)) == 22_423
    assert data.made_by["shared_captions"] == {"test in train": 0}
    assert "Apparel" in data.classes and (data.labels >= 0).all()

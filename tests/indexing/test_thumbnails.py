"""Pictures of an index: small, in order, read by row."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.thumbnails import LONGEST_SIDE, PICTURES, Thumbnails, to_jpeg, write_thumbnails


def opened(picture):
    return Image.open(io.BytesIO(picture))


def test_long_side_is_cut_to_the_limit_and_the_shape_kept():
    picture = opened(to_jpeg(np.zeros((400, 200, 3), np.uint8)))
    assert (picture.format, picture.size) == ("JPEG", (LONGEST_SIDE // 2, LONGEST_SIDE))
    assert opened(to_jpeg(np.zeros((2000, 1, 3), np.uint8))).size == (1, LONGEST_SIDE)


def test_small_image_keeps_its_size_and_nearly_its_pixels():
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:, :10] = (250, 10, 10)
    shown = np.asarray(opened(to_jpeg(pixels)).convert("RGB")).astype(int)
    assert shown.shape == pixels.shape
    assert np.abs(shown - pixels).mean() < 8


@given(st.lists(st.binary(max_size=40), max_size=6))
@settings(deadline=None, max_examples=20)
def test_pictures_come_back_as_they_were_in_any_order(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("pictures")
    assert write_thumbnails(folder, iter(pictures)) == len(pictures)
    found = Thumbnails.open(folder)
    assert len(found) == len(pictures)
    rows = list(reversed(range(len(pictures))))
    assert found.take(rows) == pictures[::-1]
    assert found.take([]) == []
    assert (folder / PICTURES).stat().st_size == sum(map(len, pictures))


def test_row_beyond_the_pictures_is_no_row(tmp_path):
    write_thumbnails(tmp_path, [b"one"])
    for row in (-1, 1):
        with pytest.raises(AssertionError):
            Thumbnails.open(tmp_path).take([row])


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="an index without pictures; index the images again"):
        Thumbnails.open(tmp_path)

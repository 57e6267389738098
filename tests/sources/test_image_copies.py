import io

import numpy as np
import pytest
from PIL import Image

from retrieval_cl.core.images import ArrayImages
from retrieval_cl.sources.images import near as near_module
from retrieval_cl.sources.images.copies import find_copies, same_pixels
from retrieval_cl.sources.images.near import difference_hashes, near_by_hash, near_by_vectors


def smooth(count, *, seed=0, side=24):
    """Pictures of soft blobs, as unlike each other as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small]
    )


def with_copies():
    """Rows 20 to 23: row 3 as it is, twice; row 5 brighter; row 7 as a poor JPEG."""
    pixels = smooth(20)
    brighter = np.clip(pixels[5].astype(int) * 11 // 10 + 5, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[7]).save(stream, "JPEG", quality=20)
    recoded = np.asarray(Image.open(stream))
    return ArrayImages(np.concatenate([pixels, [pixels[3], pixels[3], brighter, recoded]]))


def test_equal_pixels_are_one_item_named_by_its_first_row():
    found = find_copies(with_copies())
    assert found.same.tolist() == [*range(20), 3, 3, 22, 23] and found.groups.tolist() == found.same.tolist()
    assert found.near.shape == (0, 2)


def test_equal_pixels_are_found_over_blocks(monkeypatch):
    monkeypatch.setattr("retrieval_cl.sources.images.copies.READ_ROWS", 7)
    assert same_pixels(with_copies()).tolist() == [*range(20), 3, 3, 22, 23]


def test_near_copies_are_found_by_hash_and_join_items():
    images = with_copies()
    pairs = near_by_hash(images, max_distance=16, min_correlation=0.9)
    assert {tuple(pair) for pair in pairs.tolist()} == {(3, 20), (3, 21), (20, 21), (5, 22), (7, 23)}
    found = find_copies(images, near=pairs)
    assert {tuple(pair) for pair in found.near.tolist()} == {(5, 22), (7, 23)}
    assert found.groups.tolist() == [*range(20), 3, 3, 5, 7]


def test_pairs_by_hash_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(near_module, "TILE_ROWS", 5)
    monkeypatch.setattr(near_module, "TILE_COLUMNS", 10)
    images = with_copies()
    hashes = difference_hashes(images)
    assert set(hashes.unique().tolist()) == {-1.0, 1.0} and hashes.shape == (24, 64)
    for limit in (0, 3, 20):
        wanted = {
            (i, j)
            for i in range(24)
            for j in range(i + 1, 24)
            if int((hashes[i] != hashes[j]).sum()) <= limit
        }
        pairs = near_by_hash(images, max_distance=limit, min_correlation=-1.1)
        assert {tuple(pair) for pair in pairs.tolist()} == wanted and len(pairs) == len(wanted)


def test_a_hash_says_where_grey_rises():
    rising = np.linspace(0, 255, 18).astype(np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    hashes = difference_hashes(ArrayImages(np.stack([rising, rising[:, ::-1]])))
    assert (hashes[0] == 1).all() and (hashes[1] == -1).all()


def test_images_of_one_colour_are_copies_only_if_equal():
    flat = np.stack([np.full((24, 24, 3), value, dtype=np.uint8) for value in (0, 0, 200, 255)])
    images = ArrayImages(flat)
    found = find_copies(images, near=near_by_hash(images))
    assert found.groups.tolist() == [0, 0, 2, 3]


def test_unlike_images_whose_hashes_meet_are_no_copies():
    images = ArrayImages(smooth(60, side=8))
    loose = near_by_hash(images, max_distance=28, min_correlation=-1.1)
    assert len(loose) > 50
    assert len(near_by_hash(images, max_distance=28, min_correlation=0.9)) == 0


def test_pairs_by_vectors_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(near_module, "TILE_ROWS", 4)
    monkeypatch.setattr(near_module, "TILE_COLUMNS", 8)
    vectors = np.random.default_rng(0).normal(size=(33, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = {(i, j) for i in range(33) for j in range(i + 1, 33) if float(vectors[i] @ vectors[j]) >= 0.9}
    pairs = near_by_vectors(vectors, min_cosine=0.9)
    assert {tuple(pair) for pair in pairs.tolist()} == wanted and len(wanted) > 10


def test_copies_of_copies_are_one_item():
    images = ArrayImages(smooth(6))
    pairs = np.array([[4, 5], [1, 4], [0, 2]], dtype=np.int64)
    assert find_copies(images, near=pairs).groups.tolist() == [0, 1, 0, 3, 1, 1]


def test_leaks_are_held_out_rows_that_train_knows():
    found = find_copies(with_copies(), near=np.array([[7, 23]], dtype=np.int64))
    train, test = np.arange(19), np.array([23, 19, 20, 22])
    assert found.leaks(train, test).tolist() == [[7, 23], [3, 20]]
    assert found.leaks(train[:0], test).tolist() == []
    assert found.leaks(np.array([1, 2]), test).tolist() == []


def test_counts_tell_copies_within_and_between_splits():
    found = find_copies(with_copies(), near=np.array([[7, 23], [5, 22]], dtype=np.int64))
    splits = {"train": np.array([*range(19), 20, 22]), "test": np.array([19, 21, 23])}
    assert found.counts(splits) == {
        "train: same pixels": 1,
        "train: near copies too": 2,
        "test: same pixels": 0,
        "test: near copies too": 0,
        "test in train: same pixels": 1,
        "test in train: near copies too": 2,
    }


@pytest.mark.parametrize("limit", [-1, 32])
def test_a_distance_that_means_nothing_is_refused(limit):
    with pytest.raises(AssertionError):
        near_by_hash(with_copies(), max_distance=limit)

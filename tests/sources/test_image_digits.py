import numpy as np
import pytest
import torch
from torch.nn import functional

from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.digits import WARP_SEED, permutation_split, to_bytes, warp
from retrieval_cl.sources.images.load import load_images


def knn_accuracy(data, seed=0):
    """10 nearest of the train images by cosine of the pixels, one vote each."""
    splits = np.array(permutation_split(len(data.images), seed=seed, test_share=0.3, dev_share=0.0))
    train, test = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
    pixels = data.images.take(np.arange(len(data.images))).flatten(1).double()
    rows = functional.normalize(pixels, dim=1).numpy()
    nearest = np.argsort(-(rows[test] @ rows[train].T), axis=1, kind="stable")[:, :10]
    votes = np.zeros((len(test), 10), dtype=np.int64)
    for neighbours in nearest.T:
        votes[np.arange(len(test)), data.labels[train[neighbours]]] += 1
    return (votes.argmax(axis=1) == data.labels[test]).mean()


@pytest.mark.parametrize(("warped", "published"), [(False, 0.976), (True, 0.770)])
def test_raw_pixels_reach_the_accuracy_of_the_protocol(warped, published):
    data = load_images(ImageSourceConfig(warped=warped))
    assert abs(np.mean([knn_accuracy(data, seed) for seed in range(3)]) - published) < 0.01


def test_digits_are_whole_and_split_by_the_permutation():
    data = load_images(ImageSourceConfig(split_seed=2))
    order = np.random.default_rng(2).permutation(1797)
    assert data.splits["train"].tolist() == sorted(order[:1257].tolist())
    assert data.splits["test"].tolist() == sorted(order[1257:].tolist())
    assert data.classes == tuple("0123456789") and np.bincount(data.labels).sum() == 1797
    assert data.images.size == (8, 8) and data.name == "digits"
    pixels = data.images.take(np.arange(1797))
    assert pixels.min() == 0 and pixels.max() == 255
    assert torch.equal(pixels[:, 0], pixels[:, 1]) and torch.equal(pixels[:, 0], pixels[:, 2])


def test_warped_twins_share_splits_and_labels():
    plain, warped = (load_images(ImageSourceConfig(warped=each, dev_share=0.1)) for each in (False, True))
    assert plain.name != warped.name and plain.splits.keys() == {"train", "dev", "test"}
    for split, rows in plain.splits.items():
        np.testing.assert_array_equal(rows, warped.splits[split])
    np.testing.assert_array_equal(plain.labels, warped.labels)
    everything = np.arange(1797)
    assert not torch.equal(plain.images.take(everything), warped.images.take(everything))


def test_a_warp_is_that_of_grid_sample():
    images = np.random.default_rng(0).random((50, 8, 8)) * 16
    generator = np.random.default_rng(3)
    angles = np.deg2rad(generator.uniform(-20, 20, 50))
    # In units of half a side.
    shifts = 2 * generator.uniform(-0.2, 0.2, (50, 2))
    assert np.abs(shifts).max() > 0.35
    cos, sin = np.cos(angles), np.sin(angles)
    maps = np.stack([np.stack([cos, -sin, shifts[:, 0]], 1), np.stack([sin, cos, shifts[:, 1]], 1)], 1)
    grid = functional.affine_grid(torch.from_numpy(maps), [50, 1, 8, 8], align_corners=False)
    wanted = functional.grid_sample(torch.from_numpy(images)[:, None], grid, align_corners=False)
    np.testing.assert_allclose(warp(images, seed=3), wanted[:, 0].numpy(), atol=1e-12)


def test_a_warp_is_a_pure_function_and_each_image_has_its_own():
    same = np.repeat(np.random.default_rng(1).random((1, 8, 8)), 4, axis=0)
    once, again = warp(same, seed=WARP_SEED), warp(same, seed=WARP_SEED)
    np.testing.assert_array_equal(once, again)
    assert len({image.tobytes() for image in once}) == 4


def test_bytes_span_the_range():
    assert to_bytes(np.array([[[0.0, 16.0], [8.0, 1.0]]])).tolist() == [[[0, 255], [128, 16]]]


def test_shares_of_a_permutation_meet_without_a_gap():
    splits = permutation_split(100, seed=0, test_share=0.3, dev_share=0.1)
    assert [splits.count(name) for name in ("train", "dev", "test")] == [60, 10, 30]
    assert set(permutation_split(10, seed=0, test_share=0.0, dev_share=0.0)) == {"train"}


def test_a_larger_size_resamples_and_keeps_what_pixels_tell():
    data = load_images(ImageSourceConfig(size=16))
    assert data.images.size == (16, 16)
    assert knn_accuracy(data) > 0.96

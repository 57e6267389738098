"""Real images: CIFAR-10 as JPEG files in one archive, decoded in processes and kept in a folder."""

import numpy as np
import pytest

from retrieval_cl.core.images import ArrayImages
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.copies import find_copies
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.sources.images.near import near_by_hash
from retrieval_cl.sources.images.packed import read_npz


@pytest.mark.slow
def test_cifar10_is_decoded_once_and_found_again(shared_data, tmp_path):
    path, kept = str(shared_data("cifar10") / "test.npz"), str(tmp_path)
    config = ImageSourceConfig(kind="image_npz", path=path, cache_dir=kept, workers=2, max_broken=0)
    data = load_images(config)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 7000, "test": 3000}
    assert data.classes[:2] == ("airplane", "automobile") and data.images.size == (32, 32)
    assert np.bincount(data.labels).tolist() == [1000] * 10
    mapped = load_images(config.model_copy(update={"memory_gb": 1e-3, "workers": None}))
    assert isinstance(mapped.images, ArrayImages) and isinstance(mapped.images.pixels, np.memmap)
    np.testing.assert_array_equal(mapped.images.pixels, data.images.pixels)
    # No two are equal; some are near copies, as Barz and Denzler (2020) found by eye.
    found = find_copies(data.images, near=near_by_hash(data.images))
    assert len(np.unique(found.same)) == 10_000
    assert 15 <= 10_000 - len(np.unique(found.groups)) <= 60


def test_cifar10_has_both_splits_and_equal_classes(shared_data):
    parts = read_npz(shared_data("cifar10"))
    assert [(part.splits[0], len(part.encoded)) for part in parts] == [("test", 10_000), ("train", 50_000)]
    assert [np.ptp(np.bincount(part.labels)) for part in parts] == [0, 0]

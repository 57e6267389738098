"""Raw pixels as features: what they are, whatever the size of the images."""

import numpy as np
import torch

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.runs.image_config import ImageEvaluationConfig
from retrieval_cl.runs.image_scores import Task, describe_protocol, found_first, named_by, pixel_vectors


def draw(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    return ArrayImages(pixels), torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def told(images):
    rows = np.arange(5, dtype=np.int64)
    return describe_protocol(ImageEvaluationConfig(), Task(images, rows[:3], rows[3:], rows % 2, 2))


def test_pixels_of_small_images_are_taken_as_they_are():
    images, pixels = draw(32, 8)
    rows = np.array([4, 0], dtype=np.int64)
    expected = torch.nn.functional.normalize(pixels[rows].flatten(1), dim=1)
    assert np.array_equal(pixel_vectors(images, rows), expected.numpy())
    assert told(images)["raw pixels"] == "their cosine, of images as they are"


def test_pixels_of_large_images_take_no_more_room_than_those_of_small_ones():
    images, pixels = draw(96, 16)
    rows = np.arange(5, dtype=np.int64)
    found = pixel_vectors(images, rows)
    # A third of the height: each pixel is near the mean of the three it stands for.
    assert found.shape == (5, 3 * 32 * 16)
    means = torch.nn.functional.normalize(pixels.unflatten(2, (32, 3)).mean(3).flatten(1), dim=1)
    assert ((torch.from_numpy(found) * means).sum(dim=1) > 0.98).all()
    assert told(images)["raw pixels"] == "their cosine, of images shrunk to 32 x 16"


def test_the_nearest_image_may_be_right_where_the_vote_is_not():
    labels = np.array([0, 1, 1, 0, 1], dtype=np.int64)
    rows = np.arange(5, dtype=np.int64)
    task = Task(draw(4, 4)[0], rows[:3], rows[3:], labels, 2)
    scores = np.array([[0.9, 0.5, 0.4], [0.9, 0.5, 0.4]], dtype=np.float32)
    hits = Hits(scores, np.array([[0, 1, 2], [0, 1, 2]], dtype=np.int64))
    assert found_first(task, hits).tolist() == [True, False]
    assert named_by(task, hits, config=ImageEvaluationConfig(knn_k=3)).tolist() == [False, True]

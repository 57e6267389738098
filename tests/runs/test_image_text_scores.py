import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.runs.image_text_board import ImageTextBoard, describe_protocol
from retrieval_cl.runs.image_text_config import DIRECTIONS, IMAGE_TO_TEXT, TEXT_TO_IMAGE, ZERO_SHOT
from retrieval_cl.runs.image_text_scores import CrossModalTask, ImageTextTasks, ZeroShotTask, means
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import find_matches

CAPTIONS = ("a cat", "A  cat", "a dog", "two dogs", "a dog", "a bird", "a cat", "one bird")
OF_IMAGES = (0, 1, 1, 2, 3, 4, 5, 5)


def make_data():
    """Images 0 to 5, of which 4 and 5 are train; 0, 1 and 5 share a caption, and so do 1 and 3."""
    pixels = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    return ImageTextData(
        name="tiny",
        images=ArrayImages(pixels),
        ids=[f"i{row}" for row in range(6)],
        captions=CAPTIONS,
        caption_images=np.array(OF_IMAGES, dtype=np.int64),
        labels=np.array([0, 0, 1, -1, 2, 0], dtype=np.int64),
        classes=("cat", "dog", "bird"),
        splits={"train": np.array([4, 5]), "test": np.array([0, 1, 2, 3])},
    )


def encoders(data, *, dim=5):
    """Vectors of all images and captions, and what gives those of some rows."""
    generator = np.random.default_rng(0)
    tables = [generator.normal(size=(count, dim)).astype(np.float32) for count in (6, len(data.captions))]
    images, captions = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in tables)
    return lambda rows: images[rows], lambda rows: captions[rows]


def test_captions_of_equal_text_are_one_and_match_all_their_images():
    data = make_data()
    task = CrossModalTask.of(data, find_matches(data), split="test")
    texts = [data.captions[row] for row in task.captions]
    assert texts == ["a cat", "a dog", "two dogs"]
    assert [task.images_of[place].tolist() for place in range(3)] == [[0, 1], [1, 3], [2]]
    assert [task.captions_of[place].tolist() for place in range(4)] == [[0], [0, 1], [2], [1]]


def test_both_directions_equal_a_slow_loop():
    data = make_data()
    task = CrossModalTask.of(data, find_matches(data), split="test")
    images, captions = encoders(data)
    found = task.measure(images, captions)
    scores = captions(task.captions) @ images(task.images).T
    for direction, table, relevant in (
        (TEXT_TO_IMAGE, scores, task.images_of),
        (IMAGE_TO_TEXT, scores.T, task.captions_of),
    ):
        for query, row in enumerate(table):
            first = int(np.argmax(row))
            assert found[direction]["success@1"][query] == float(first in relevant[query])
            share = float(first in relevant[query]) / len(relevant[query])
            assert found[direction]["recall@1"][query] == pytest.approx(share)


def test_a_sample_of_images_brings_its_own_captions_alone():
    data = make_data()
    task = CrossModalTask.of(data, find_matches(data), split="test", max_images=2, seed=3)
    assert len(task.images) == 2 and (task.images_of.counts >= 1).all()
    own = {data.captions[row] for row in data.captions_of(task.images)}
    assert {data.captions[row] for row in task.captions} <= own


def test_images_of_unknown_class_are_not_classified():
    data = make_data()
    task = ZeroShotTask.of(data.labels, data.classes, rows=data.splits["test"], templates=None)
    assert task.rows.tolist() == [0, 1, 2] and task.labels.tolist() == [0, 0, 1]
    assert ZeroShotTask.of(None, (), rows=data.splits["test"], templates=None) is None


def test_means_have_flat_names_and_the_mean_of_both_ways():
    values = {
        TEXT_TO_IMAGE: {f"{m}@{k}": np.array([1.0, 0.0]) for m in ("success", "recall") for k in (1, 5, 10)},
        IMAGE_TO_TEXT: {f"{m}@{k}": np.array([1.0]) for m in ("success", "recall") for k in (1, 5, 10)},
        ZERO_SHOT: {ZERO_SHOT: np.array([0.0, 1.0, 1.0, 1.0])},
    }
    found = means(values)
    assert found["text_to_image_success@1"] == 0.5 and found["mean_recall@5"] == 0.75
    assert found[ZERO_SHOT] == 0.75


def test_a_split_that_is_not_there_is_refused():
    data = make_data()
    with pytest.raises(InputError, match="'tiny' has no split 'dev'; it has train, test"):
        CrossModalTask.of(data, find_matches(data), split="dev")


def test_the_board_tests_pairs_and_says_how_it_measured():
    data = make_data()
    tasks = ImageTextTasks.of(data, find_matches(data), split="test", templates=("a {}",))
    images, captions = encoders(data)
    good, bad = tasks.cross_modal.measure(images, captions), tasks.cross_modal.measure(images, captions)
    bad = {part: {metric: values * 0 for metric, values in row.items()} for part, row in bad.items()}
    board = ImageTextBoard.of(
        {"good": good, "bad": bad},
        pairs=[("good", "bad")],
        protocol=describe_protocol(tasks, split="test"),
    )
    facts = board.to_json("good")
    for part in DIRECTIONS:
        assert facts[part]["recall@10"] == 1.0
    compared = [one for one in facts["comparisons"] if one["metric"] == "recall@10"]
    assert [(one["part"], one["mean"], one["losses"]) for one in compared] == [
        (part, 1.0, 0) for part in DIRECTIONS
    ]
    text = board.text()
    assert "4 images and 3 distinct captions of split test" in text and "good - bad" in text
    assert "R@k" in text and "ties counted against the model" in text

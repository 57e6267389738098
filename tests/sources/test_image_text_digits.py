import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.digits import WEIGHTS, WORDS
from retrieval_cl.sources.image_text.load import load_image_text
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.load import load_images


@pytest.mark.parametrize("warped", [False, True])
def test_captioned_digits_are_the_digits_of_the_image_source_with_its_splits(warped):
    data = load_image_text(ImageTextSourceConfig(warped=warped, dev_share=0.1))
    plain = load_images(ImageSourceConfig(warped=warped, dev_share=0.1))
    rows = np.arange(1797)
    assert (data.images.take(rows) == plain.images.take(rows)).all() and data.ids == plain.ids
    assert data.labels.tolist() == plain.labels.tolist() and data.classes == WORDS
    assert {name: rows.tolist() for name, rows in data.splits.items()} == {
        name: rows.tolist() for name, rows in plain.splits.items()
    }


def test_one_caption_a_class_is_shared_by_all_its_images():
    data = load_image_text(ImageTextSourceConfig(digit_captions="class"))
    wanted = [f"a handwritten {WORDS[digit]}" for digit in load_digits().target]
    assert list(data.captions) == wanted and len(set(data.captions)) == 10
    assert data.caption_images.tolist() == list(range(1797))


def test_four_captions_an_image_tell_its_class_and_weight():
    data = load_image_text(ImageTextSourceConfig())
    assert len(data.captions) == 4 * 1797 and len(set(data.captions)) == 20 + 60
    ink = load_digits().images.sum(axis=(1, 2))
    third = {}
    for row in range(1797):
        word, numeral, weighted, strokes = (data.captions[i] for i in data.captions_of(np.array([row])))
        name = data.classes[data.labels[row]]
        weight = weighted.split()[1]
        assert word == f"a handwritten {name}" and numeral == f"the digit {data.labels[row]}"
        assert weighted == f"a {weight} handwritten {name}"
        assert strokes == f"the numeral {data.labels[row]} in {weight} strokes"
        third[row] = WEIGHTS.index(weight)
    # More ink is never a lighter weight, and each weight is a third of the train images.
    order = np.argsort(ink, kind="stable")
    assert (np.diff([third[row] for row in order]) >= -1).all()
    counts = np.bincount([third[row] for row in data.splits["train"]])
    assert counts.sum() == 1257 and np.abs(counts - 419).max() <= 25
    assert max(ink[row] for row in third if third[row] == 0) < min(
        ink[row] for row in third if third[row] == 2
    )


def test_what_digits_are_made_by_is_told_and_their_shared_captions_counted():
    data = load_image_text(ImageTextSourceConfig(digit_captions="class", warped=True, size=16, fit="stretch"))
    made = json.loads(json.dumps(dict(data.made_by)))
    assert made["shared_captions"] == {"test in train": 10}
    assert made["digit_captions"] == "class" and made["warped"] is True and made["size"] == [16, 16]
    assert data.name == "caption_digits_warped"

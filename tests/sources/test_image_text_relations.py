from dataclasses import replace

import numpy as np
import pytest
from tiny_image_text import make_data

from retrieval_cl.sources.image_text.relations import find_matches
from retrieval_cl.sources.normalise import normalise_text


def slow_known(data, items):
    """Item ids by two loops over images and one over captions."""
    texts = [normalise_text(caption) for caption in data.captions]
    return [
        sorted(
            {
                texts.index(texts[caption])
                for caption, owner in enumerate(data.caption_images.tolist())
                if items[owner] == items[image]
            }
        )
        for image in range(len(data.images))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_relation_equals_slow_loops(seed):
    data = make_data(seed)
    items = list(range(30))
    items[11] = items[22] = 1
    matches = find_matches(data)
    assert matches.image_items.tolist() == items
    assert [matches.known[image].tolist() for image in range(30)] == slow_known(data, items)
    texts = [normalise_text(caption) for caption in data.captions]
    assert matches.caption_items.tolist() == [texts.index(text) for text in texts]


def test_given_items_take_the_place_of_equal_pixels():
    data = make_data()
    items = np.arange(30, dtype=np.int64) // 4 * 7
    matches = find_matches(data, image_items=items)
    assert [matches.known[image].tolist() for image in range(30)] == slow_known(data, items.tolist())
    same = np.arange(30, dtype=np.int64)
    same[5] = 4
    found = find_matches(replace(data, same=same))
    assert found.image_items.tolist() == same.tolist()
    assert [found.known[image].tolist() for image in range(30)] == slow_known(data, same.tolist())


def test_an_image_matches_each_of_its_captions():
    data = make_data()
    matches = find_matches(data)
    for caption, image in enumerate(data.caption_images.tolist()):
        assert matches.caption_items[caption] in matches.known[image]

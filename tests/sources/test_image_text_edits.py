import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_image_text import make_data

from retrieval_cl.sources.image_text.edits import NUMBERS, TRIES, CaptionEdits
from retrieval_cl.sources.image_text.relations import find_matches
from retrieval_cl.sources.image_text.word_neighbours import WordNeighbours, find_neighbours, words_of
from retrieval_cl.sources.normalise import normalise_text

DATA = make_data()
TRAIN = DATA.captions_of(DATA.splits["train"])
MATCHES = find_matches(DATA)
WORDS = find_neighbours([DATA.captions[row] for row in TRAIN])


def edit_all(seed=0, *, edits=3, words=WORDS):
    """Edits of every train caption, as lists."""
    numbers = np.random.default_rng(seed).random((len(TRAIN), edits, TRIES, NUMBERS))
    images = DATA.caption_images[TRAIN]
    made = CaptionEdits(DATA.captions, matches=MATCHES, neighbours=words).make(TRAIN, images, numbers)
    return [made[start : start + edits] for start in range(0, len(made), edits)]


def true_texts(caption):
    """Normalised captions that match the image of a caption."""
    known = MATCHES.known[int(DATA.caption_images[caption])].tolist()
    return {normalise_text(DATA.captions[item]) for item in known}


def test_an_edit_never_equals_a_caption_of_the_image_or_another_edit():
    made = 0
    for seed in range(10):
        for caption, edits in zip(TRAIN.tolist(), edit_all(seed), strict=True):
            texts = [normalise_text(edit) for edit in edits if edit is not None]
            assert len(set(texts)) == len(texts) and not true_texts(caption) & set(texts)
            made += len(texts)
    assert made > 0.9 * 10 * 3 * len(TRAIN)


def test_an_edit_swaps_two_words_or_puts_a_neighbour_in_the_place_of_one():
    kinds = Counter()
    for seed in range(5):
        for caption, edits in zip(TRAIN.tolist(), edit_all(seed), strict=True):
            before = words_of(DATA.captions[caption])
            for edit in filter(None, edits):
                after = words_of(edit)
                places = [
                    place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
                ]
                if len(places) == 1:
                    assert after[places[0]] in WORDS.neighbours[before[places[0]]]
                else:
                    first, second = places
                    assert (after[first], after[second]) == (before[second], before[first])
                kinds[len(places)] += 1
    assert min(kinds[1], kinds[2]) > 100


def test_a_word_of_a_true_caption_takes_no_place():
    neighbours = {"dog": ("cat", "horse"), "cat": ("dog", "horse")}
    words = WordNeighbours(neighbours, {"dog": 1.0, "cat": 1.0})
    caption = next(row for row in TRAIN.tolist() if {"dog", "cat"} <= set(words_of(DATA.captions[row])))
    place, image = np.array([caption]), DATA.caption_images[[caption]]
    edits = CaptionEdits(DATA.captions, matches=MATCHES, neighbours=words)
    # The kind is above a half: words are replaced.
    numbers = np.random.default_rng(0).random((1, 1, TRIES, NUMBERS)) / 2 + np.array([0.5, 0, 0])
    (edit,) = edits.make(place, image, numbers)
    assert "horse" in words_of(edit)


def test_marks_and_large_letters_stay_in_their_places():
    data = make_data()
    data.captions[0] = "Dogs chase (one) CAT, today."
    matches = find_matches(data)
    words = WordNeighbours({"cat": ("bird",)}, {"dogs": 1.0, "cat": 1.0})
    numbers = np.random.default_rng(0).random((1, 1, TRIES, NUMBERS))
    edits = CaptionEdits(data.captions, matches=matches, neighbours=words)
    row = np.zeros(1, dtype=np.int64)
    swap, replace = numbers.copy(), numbers.copy()
    swap[..., 0], replace[..., 0] = 0.2, 0.7
    assert edits.make(row, row, swap) == ["CAT chase (one) Dogs, today."]
    assert edits.make(row, row, replace) == ["Dogs chase (one) Bird, today."]


def test_equal_numbers_make_equal_edits_and_others_do_not():
    assert edit_all(1) == edit_all(1) != edit_all(2)


def test_a_caption_is_edited_alike_whatever_stands_beside_it():
    numbers = np.random.default_rng(4).random((len(TRAIN), 2, TRIES, NUMBERS))
    images = DATA.caption_images[TRAIN]
    edits = CaptionEdits(DATA.captions, matches=MATCHES, neighbours=WORDS)
    whole = edits.make(TRAIN, images, numbers)
    parts = [edits.make(TRAIN[part], images[part], numbers[part]) for part in (slice(0, 9), slice(9, None))]
    assert parts[0] + parts[1] == whole


def test_rarity_counts_distinct_captions():
    captions = ["red ball here", "blue ball here", "red car here", "blue car here"] * 2
    found = find_neighbours(captions)
    # In all of four distinct captions, and in two of them.
    assert found.rarity["here"] == pytest.approx(math.log(5 / 4))
    assert found.rarity["red"] == pytest.approx(math.log(5 / 2))


def slow_neighbours(captions, *, count, min_count):
    """The same by loops over all pairs of words."""
    contexts, counts = {}, Counter()
    for caption in dict.fromkeys(map(normalise_text, captions)):
        words = ["", *words_of(caption), ""]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            contexts.setdefault(word, Counter())[before, after] += 1
            counts[word] += 1
    known = sorted(word for word in contexts if counts[word] >= min_count)
    lines = {word: {place: math.log1p(n) for place, n in contexts[word].items()} for word in known}
    found = {}
    for word in known:
        scored = []
        for other in known:
            if other.startswith(word) or word.startswith(other):
                continue
            product = sum(weight * lines[other].get(place, 0) for place, weight in lines[word].items())
            sizes = math.prod(math.sqrt(sum(w * w for w in lines[one].values())) for one in (word, other))
            if product:
                scored.append((-round(product / sizes, 9), other))
        if scored:
            found[word] = sorted(scored)[:count]
    return found


@settings(deadline=None, max_examples=60)
@given(
    captions=st.lists(
        st.lists(st.sampled_from(["a", "ab", "b", "c", "d", "e"]), min_size=1, max_size=4).map(" ".join),
        min_size=1,
        max_size=20,
    ),
    count=st.integers(1, 4),
    min_count=st.integers(1, 3),
)
def test_neighbours_equal_slow_loops(captions, count, min_count):
    found = find_neighbours(captions, count=count, min_count=min_count).neighbours
    expected = slow_neighbours(captions, count=count, min_count=min_count)
    assert found.keys() == expected.keys()
    for word, others in expected.items():
        # Where cosines are equal but for their last bits, the order is not fixed: compare the cosines.
        full = dict.fromkeys(slow_neighbours(captions, count=99, min_count=min_count)[word])
        cosine = {other: score for score, other in full}
        assert [cosine[other] for other in found[word]] == [score for score, _ in others]


def test_neighbours_of_digits_are_digits():
    captions = [f"a photo of the digit {digit}" for digit in ("one", "two", "three", "four")] * 3
    found = find_neighbours(captions, min_count=1).neighbours
    assert set(found["two"]) == {"one", "three", "four"} and "digit" not in found

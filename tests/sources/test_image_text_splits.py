import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.image_text.parts import caption_rows
from retrieval_cl.sources.image_text.splits import first_rows, shared_captions, split_images
from retrieval_cl.sources.images.held_out import split_rows
from retrieval_cl.sources.images.pixels import digest


def digests(contents):
    """One digest for each content number; equal numbers are copies."""
    return np.stack([digest(np.full((1, 1, 3), content, dtype=np.uint8)) for content in contents])


def split(contents, captions, given_splits=None, **options):
    values = {"test_share": 0.3, "dev_share": 0.0, "seed": 0} | options
    given_splits = ["train"] * len(contents) if given_splits is None else given_splits
    return split_images(given_splits, digests(contents), *caption_rows(captions), **values)


def words(captions, rows):
    return {caption.casefold() for row in rows for caption in captions[row]}


@settings(deadline=None, max_examples=30)
@given(
    images=st.lists(
        st.tuples(
            st.integers(0, 25), st.lists(st.sampled_from("abcdefghijklmnopqrst"), min_size=1, max_size=2)
        ),
        min_size=8,
        max_size=40,
    ),
    dev_share=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 3),
)
def test_drawn_splits_share_no_caption_and_no_pixels(images, dev_share, seed):
    contents = [content for content, _ in images] + [100, 101, 102, 103]
    captions = [texts for _, texts in images] + [["w"], ["X"], ["y"], ["z"]]
    splits, leaked = split(contents, captions, dev_share=dev_share, seed=seed)
    assert leaked == 0 and sorted(np.concatenate(list(splits.values())).tolist()) == list(
        range(len(contents))
    )
    for of_row in (lambda rows: {contents[row] for row in rows}, lambda rows: words(captions, rows)):
        seen = [of_row(rows) for rows in splits.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert set(shared_captions(splits, *caption_rows(captions)).values()) == {0}


def test_a_chain_of_captions_and_copies_stays_in_one_split():
    contents = [0, 1, 2, 2, *range(10, 20)]
    captions = [["a"], ["A", "b"], ["B"], ["c"], *([f"own {i}"] for i in range(10))]
    for seed in range(20):
        splits, _ = split(contents, captions, seed=seed)
        assert len({name for name, rows in splits.items() if np.isin(rows, [0, 1, 2, 3]).any()}) == 1


def test_a_share_is_filled_as_far_as_whole_groups_fit():
    # Ten groups of three images: a share of 0.35 has room for three of them.
    captions = [[f"g{row // 3}"] for row in range(30)]
    splits, _ = split(list(range(30)), captions, test_share=0.35)
    assert len(splits["test"]) == 9
    # Groups that are all larger than the share: the smallest is taken.
    splits, _ = split(list(range(30)), [["a"]] * 16 + [["b"]] * 14, test_share=0.1)
    assert splits["test"].tolist() == list(range(16, 30))


def test_a_draw_depends_on_contents_and_seed_not_on_order():
    contents, captions = list(range(40)), [[f"g{row // 2}"] for row in range(40)]
    splits, _ = split(contents, captions)
    backwards, _ = split(contents[::-1], captions[::-1])
    assert {39 - row for row in backwards["test"]} == set(splits["test"].tolist())
    other, _ = split(contents, captions, seed=1)
    assert set(other["test"].tolist()) != set(splits["test"].tolist())


def test_distinct_captions_are_drawn_as_images_alone_are():
    contents = [*range(40), 3, 4]
    captions = [[f"c{row}"] for row in range(42)]
    with_captions, _ = split(contents, captions, dev_share=0.1)
    alone, _ = split_rows(["train"] * 42, digests(contents), test_share=0.3, dev_share=0.1, seed=0)
    assert {name: rows.tolist() for name, rows in with_captions.items()} == {
        name: rows.tolist() for name, rows in alone.items()
    }


def test_named_splits_keep_a_shared_caption_but_no_copy_of_a_held_out_image():
    given_splits = ["train", "train", "test", "dev", "train"]
    captions = [["a"], ["a", "b"], ["A"], ["b"], ["c"]]
    splits, leaked = split([0, 1, 0, 3, 4], captions, given_splits, test_share=None)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [1, 4],
        "dev": [3],
        "test": [2],
    }
    assert leaked == 1
    assert shared_captions(splits, *caption_rows(captions)) == {
        "dev in train": 1,
        "test in train": 1,
        "test in dev": 0,
    }


def test_images_that_all_share_a_caption_cannot_be_split():
    with pytest.raises(
        InputError, match=r"^4 distinct train images in 1 groups that are not drawn apart are too"
    ):
        split([0, 1, 2, 3], [["a"], ["a", "b"], ["b"], ["b"]])


def test_the_first_row_of_equal_images_stands_for_all():
    assert first_rows(digests([5, 6, 5, 7, 6])).tolist() == [0, 1, 0, 3, 1]

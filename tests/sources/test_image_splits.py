import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.held_out import split_rows
from retrieval_cl.sources.images.pixels import digest


def digests(contents):
    """One digest for each content number; equal numbers are copies."""
    return np.stack([digest(np.full((1, 1, 3), content, dtype=np.uint8)) for content in contents])


def split(given_splits, contents, **options):
    settings = {"test_share": None, "dev_share": 0.0, "seed": 0}
    return split_rows(given_splits, digests(contents), **(settings | options))


@settings(deadline=None, max_examples=20)
@given(
    contents=st.lists(st.integers(0, 20), min_size=6, max_size=40),
    test_share=st.sampled_from([0.0, 0.2, 0.5]),
    dev_share=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 3),
)
def test_splits_never_overlap_by_row_or_by_pixels(contents, test_share, dev_share, seed):
    contents += [100, 101, 102, 103]
    splits, leaked = split(
        ["train"] * len(contents), contents, test_share=test_share, dev_share=dev_share, seed=seed
    )
    assert leaked == 0
    rows = np.concatenate(list(splits.values()))
    assert sorted(rows.tolist()) == list(range(len(contents)))
    held = [{contents[row] for row in found} for found in splits.values()]
    assert sum(map(len, held)) == len(set(contents))
    sizes = {name: len({contents[row] for row in found}) for name, found in splits.items()}
    for name, share in (("test", test_share), ("dev", dev_share)):
        wanted = max(1, round(share * len(set(contents)))) if share else 0
        assert sizes.get(name, 0) == wanted


def test_a_draw_depends_on_pixels_and_seed_not_on_order():
    contents = list(range(40))
    splits, _ = split(["train"] * 40, contents)
    backwards, _ = split(["train"] * 40, contents[::-1])
    assert {40 - 1 - row for row in backwards["test"]} == set(splits["test"].tolist())
    other, _ = split(["train"] * 40, contents, seed=1)
    assert set(other["test"].tolist()) != set(splits["test"].tolist())


def test_splits_of_the_data_are_kept():
    splits, leaked = split(["test", "train", "dev", "train"], [0, 1, 2, 3])
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [1, 3],
        "dev": [2],
        "test": [0],
    }
    assert leaked == 0


def test_a_train_image_with_the_pixels_of_a_held_out_one_is_in_no_split():
    splits, leaked = split(["train", "train", "test", "dev", "train"], [7, 8, 7, 9, 9])
    assert leaked == 2 and splits["train"].tolist() == [1]
    assert splits["test"].tolist() == [2] and splits["dev"].tolist() == [3]


def test_data_without_train_is_taken_as_it_is():
    splits, _ = split(["test", "test"], [0, 1])
    assert list(splits) == ["test"]


@pytest.mark.parametrize(
    ("given_splits", "contents", "options", "line"),
    [
        (
            ["train", "test"],
            [0, 1],
            {"test_share": 0.2},
            "source.test_share 0.2 has no effect: the data has splits",
        ),
        (["train", "dev"], [0, 1], {"dev_share": 0.2}, "source.dev_share 0.2 has no effect"),
        (["train"], [0], {}, "1 distinct train images are too few for a test_share of 0.3"),
        (["train", "train", "test"], [0, 0, 0], {}, "no train image is left"),
    ],
)
def test_a_split_that_cannot_be_is_one_line(given_splits, contents, options, line):
    with pytest.raises(InputError, match=line):
        split(given_splits, contents, **options)

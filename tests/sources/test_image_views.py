from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.sources.images.image_views import ImageViews
from retrieval_cl.sources.images.order import epoch_order
from retrieval_cl.training.run import Source

NUM_IMAGES = 30
TRAIN = np.array([row for row in range(NUM_IMAGES) if row % 5], dtype=np.int64)


@dataclass(frozen=True)
class Table:
    round: int
    queries: np.ndarray
    rows: np.ndarray


class Noisy:
    """The pixels, with noise of its own for each image and view."""

    def first(self, images, *, generator, first=0, total=None):
        noise = torch.rand((total or len(images), *images.shape[1:]), generator=generator)
        return images.float() + noise[first : first + len(images)]

    def __call__(self, images, **given):
        return self.first(images, **given), self.first(images, **given)


def make_source(groups=None, rows=TRAIN, **options):
    """Image i is a single pixel of the value i."""
    pixels = np.arange(NUM_IMAGES, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    settings = {"batch_size": 4, "device": torch.device("cpu"), "num_negatives": 2, **options}
    if groups is None:
        groups = np.arange(NUM_IMAGES, dtype=np.int64)
    return ImageViews(ArrayImages(pixels), rows=rows, groups=groups, augment=Noisy(), **settings)


def make_table(round=0):
    generator = np.random.default_rng(5)
    queries = generator.permutation(TRAIN)[:20]
    rows = TRAIN[generator.integers(0, len(TRAIN), (20, 5))]
    rows[3] = -1
    rows[4] = [-1, 8, -1, -1, 11]
    return Table(round, queries, rows)


def batches(source, table=None, **options):
    return list(source.batches(table, **{"seed": 3, "round": 1, "num_steps": 13, **options}))


def shown(view):
    """Which image each row shows."""
    return view.inputs.values[:, 0, 0, 0].floor().long().tolist()


def flat(batch):
    views = {kind: (view.inputs.values.tolist(), view.ids.tolist()) for kind, view in batch.views.items()}
    return views, batch.known.tolist()


def test_it_is_a_source():
    assert isinstance(make_source(), Source)


def test_each_epoch_shows_each_train_image_once_in_a_fresh_order():
    source = make_source()
    assert source.steps_per_epoch == 6
    found = [shown(batch.views["view_a"]) for batch in batches(source, round=0, num_steps=12)]
    epochs = [[row for batch in found[start : start + 6] for row in batch] for start in (0, 6)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == TRAIN.tolist() and epochs[0] != epochs[1]


def test_both_views_of_a_row_show_one_image_differently():
    for batch in batches(make_source(), make_table()):
        first, second = batch.views["view_a"], batch.views["view_b"]
        assert shown(first) == shown(second) == first.ids.tolist() == second.ids.tolist()
        assert not torch.equal(first.inputs.values, second.inputs.values)
        assert batch.known.tolist() == first.ids[:, None].tolist()


def test_short_rounds_show_all_images_equally_often():
    source = make_source(batch_size=3)
    seen = Counter()
    for round in range(24):
        for batch in batches(source, round=round, num_steps=2, steps_before=2 * round):
            seen.update(shown(batch.views["view_a"]))
    assert source.steps_per_epoch == 8 and seen == {row: 6 for row in TRAIN.tolist()}


def test_rounds_of_any_length_run_on_in_one_order():
    source = make_source()
    whole = [flat(batch)[0]["view_a"][1] for batch in batches(source, round=0, num_steps=15)]
    cut, before = [], 0
    for round, steps in enumerate((2, 7, 1, 5)):
        found = batches(source, round=round, num_steps=steps, steps_before=before)
        cut += [batch.views["view_a"].ids.tolist() for batch in found]
        before += steps
    assert cut == whole


@pytest.mark.parametrize("start", [0, 1, 7, 13])
def test_a_batch_is_a_pure_function_of_seed_round_and_step(start):
    whole = [flat(batch) for batch in batches(make_source(), make_table())]
    rest = [flat(batch) for batch in batches(make_source(), make_table(), start_step=start)]
    assert rest == whole[start:]


def test_other_seeds_rounds_and_steps_show_other_views():
    source = make_source(rows=TRAIN[:4])
    found = batches(source, num_steps=2, steps_before=0) + batches(
        source, num_steps=1, seed=4, steps_before=0
    )
    found += batches(source, num_steps=1, round=2, steps_before=0)
    noise = [sorted(batch.views["view_a"].inputs.values.frac().flatten().tolist()) for batch in found]
    assert len({tuple(each) for each in noise}) == 4


@pytest.mark.parametrize("world", [2, 4])
def test_the_slices_of_all_ranks_are_the_batch_of_one(world):
    source, table = make_source(), make_table()
    whole = batches(source, table)
    slices = [batches(source, table, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [each[step] for each in slices]
        for kind, view in batch.views.items():
            assert torch.equal(
                torch.cat([part.views[kind].inputs.values for part in parts]), view.inputs.values
            )
            assert torch.equal(torch.cat([part.views[kind].ids for part in parts]), view.ids)
        assert torch.equal(torch.cat([part.known for part in parts]), batch.known)


def test_real_views_are_the_same_bits_on_two_ranks():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    source = ImageViews(
        ArrayImages(pixels),
        rows=np.arange(16, dtype=np.int64),
        groups=np.arange(20, dtype=np.int64),
        augment=build_views(AugmentationConfig(), size=8, mean=[0.5] * 3, std=[0.2] * 3),
        batch_size=8,
        device=torch.device("cpu"),
    )
    for step, batch in enumerate(batches(source, num_steps=3)):
        slices = [batches(source, num_steps=3, rank=rank, world=2)[step] for rank in range(2)]
        for kind, view in batch.views.items():
            assert view.inputs.values.shape == (8, 3, 8, 8)
            joined = torch.cat([part.views[kind].inputs.values for part in slices])
            assert torch.equal(joined, view.inputs.values)


def test_negatives_are_of_the_anchor_and_empty_places_are_nobody():
    groups = np.arange(NUM_IMAGES, dtype=np.int64) // 2
    source, table = make_source(groups), make_table()
    lines = dict(zip(table.queries.tolist(), table.rows.tolist(), strict=True))
    filled = 0
    for batch in batches(source, table, num_steps=40):
        negative = batch.views["negative"]
        images, ids = shown(negative), negative.ids.tolist()
        for i, anchor in enumerate(shown(batch.views["view_a"])):
            mine = [
                image
                for image, item in zip(images[2 * i : 2 * i + 2], ids[2 * i : 2 * i + 2], strict=True)
                if item >= 0
            ]
            given = [row for row in lines.get(anchor, []) if row >= 0]
            assert len(mine) == min(2, len(given)) and not Counter(mine) - Counter(given)
            filled += len(mine)
        assert all(item == -1 or item == groups[image] for image, item in zip(images, ids, strict=True))
    assert filled > 100


def test_without_a_table_or_negatives_there_is_no_such_view():
    assert all("negative" not in batch.views for batch in batches(make_source()))
    none = make_source(num_negatives=0)
    assert all("negative" not in batch.views for batch in batches(none, make_table()))


@pytest.mark.parametrize(
    ("options", "call", "line"),
    [
        ({"batch_size": 25}, {}, r"batch size 25; valid is 1 to 24 \(the train images\)"),
        ({}, {"world": 3}, "batch size 4 cannot be cut into 3 equal parts"),
        ({"num_negatives": 6}, {}, "6 negatives an image, but the table of negatives has 5 columns"),
    ],
)
def test_what_does_not_fit_is_one_line(options, call, line):
    with pytest.raises(InputError, match=line):
        make_source(**options).batches(make_table(), **{"seed": 0, "round": 0, "num_steps": 1, **call})


def test_a_table_of_other_data_is_refused():
    table = Table(0, np.array([30]), np.array([[0, 1]]))
    with pytest.raises(InputError, match="it names image row 30 and image row 1, here are 30 and 30"):
        batches(make_source(), table)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=12, max_size=30),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_copies_stand_in_different_batches(sizes, batch_size, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64) * 10
    rows = np.arange(len(groups), dtype=np.int64) + 100
    generator = np.random.default_rng(seed)
    order = epoch_order(rows, groups, batch_size=batch_size, generator=generator)
    assert sorted(order.tolist()) == rows.tolist()
    count = len(rows) // batch_size
    full = groups[order - 100][: count * batch_size].reshape(count, batch_size)
    # With as many batches as the largest item has copies, and many items, all can be parted.
    if count >= 10:
        assert all(len(set(batch)) == batch_size for batch in full.tolist())


def test_copies_that_cannot_be_parted_stay_and_their_ids_tell():
    groups = np.zeros(NUM_IMAGES, dtype=np.int64)
    groups[TRAIN[:3]] = [1, 2, 3]
    found = batches(make_source(groups), round=0, num_steps=6)
    assert sorted(row for batch in found for row in shown(batch.views["view_a"])) == TRAIN.tolist()
    assert all(batch.known.shape == (4, 1) for batch in found)
    assert Counter(item for batch in found for item in batch.known[:, 0].tolist())[0] == 21


def test_copies_are_not_dropped_more_often_than_others():
    groups = np.concatenate([np.repeat(np.arange(8), 2), np.arange(100, 116)]).astype(np.int64)
    rows = np.arange(32, dtype=np.int64)
    dropped = np.zeros(32)
    for epoch in range(800):
        order = epoch_order(rows, groups, batch_size=5, generator=np.random.default_rng(epoch))
        dropped[order[30:]] += 1
    # 2 of 32 are left over each time: 50 a row; the standard deviation of a mean of 16 rows is below 2.
    assert abs(dropped[:16].mean() - dropped[16:].mean()) < 7, dropped

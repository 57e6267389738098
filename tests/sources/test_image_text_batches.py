from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from tiny_image_text import NUM_IMAGES, make_data, tokenize

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.sources.image_text.batches import ImageTextBatches
from retrieval_cl.sources.image_text.clusters import cluster_order
from retrieval_cl.sources.image_text.relations import find_matches
from retrieval_cl.training.run import Source

DATA = make_data()
TRAIN = DATA.splits["train"]
WAYS = [{"mined": "pairs", "edits": 1}, {"mined": "texts", "edits": 2}]


@dataclass(frozen=True)
class Table:
    round: int
    queries: np.ndarray
    rows: np.ndarray


def noisy(images, *, generator, first=0, total=None):
    """The pixels, with noise of its own for each image."""
    noise = torch.rand((total or len(images), *images.shape[1:]), generator=generator)
    return images.float() + noise[first : first + len(images)]


def make_source(data=DATA, matches=None, **options):
    settings = {"batch_size": 6, "num_negatives": 2, "augment": noisy, **options}
    return ImageTextBatches(
        data,
        matches=find_matches(data) if matches is None else matches,
        tokenize=tokenize,
        prepare=lambda images: images.float() / 255,
        device=torch.device("cpu"),
        **settings,
    )


def make_table(round=0):
    """Captions of train images, some places and one line empty; the last four images have no line."""
    generator = np.random.default_rng(5)
    queries = generator.permutation(TRAIN)[:20]
    rows = generator.choice(DATA.captions_of(TRAIN), (20, 5))
    rows[3] = -1
    rows[4, ::2] = -1
    return Table(round, queries, rows)


def batches(source, table=None, **options):
    return list(source.batches(table, **{"seed": 3, "round": 1, "num_steps": 9, **options}))


def shown(batch):
    return batch.views["image"].inputs.values[:, 0, 0, 0].floor().long().tolist()


def texts(view):
    return [view.inputs[row].tolist() for row in range(len(view.inputs))]


def flat(batch):
    views = {kind: view.ids.tolist() for kind, view in batch.views.items()}
    inputs = {kind: texts(view) for kind, view in batch.views.items() if kind != "image"}
    return views, inputs, batch.views["image"].inputs.values.tolist(), batch.known.tolist()


def test_it_is_a_source():
    assert isinstance(make_source(), Source)


@pytest.mark.parametrize("num_negatives", [0, 1, 2])
def test_without_a_table_each_epoch_shows_each_train_image_once_in_a_fresh_order(num_negatives):
    matches = replace(find_matches(DATA), image_items=np.arange(NUM_IMAGES))
    found = batches(make_source(matches=matches, num_negatives=num_negatives), round=0, num_steps=8)
    # By the ids: pixels of copies are equal.
    epochs = [torch.cat([batch.views["image"].ids for batch in found[at : at + 4]]).tolist() for at in (0, 4)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == TRAIN.tolist() and epochs[0] != epochs[1]


def test_a_row_is_an_image_one_of_its_captions_and_all_that_is_known_of_it():
    source, matches = make_source(num_negatives=0), find_matches(DATA)
    drawn = Counter()
    for batch in batches(source, num_steps=80):
        assert batch.views.keys() == {"image", "text"}
        for row, item in enumerate(batch.views["image"].ids.tolist()):
            line = batch.known[row].tolist()
            assert [one for one in line if one >= 0] == matches.known[item].tolist()
            tokens, caption = texts(batch.views["text"])[row], int(batch.views["text"].ids[row])
            assert caption in line
            drawn[item, caption] += 1
            own = DATA.captions_of(np.flatnonzero(matches.image_items == item))
            assert tokens in [tokenize([DATA.captions[one]])[0].tolist() for one in own]
    pairs = {
        (int(matches.image_items[image]), int(matches.caption_items[caption]))
        for caption, image in enumerate(DATA.caption_images.tolist())
        if image in TRAIN
    }
    assert drawn.keys() == pairs


def test_copies_of_an_image_stand_in_different_batches():
    for num_negatives in (0, 1, 2):
        source = make_source(num_negatives=num_negatives)
        for batch in batches(source, num_steps=80):
            assert len(set(batch.views["image"].ids.tolist())) == 6


def test_images_that_all_are_copies_stay_and_their_ids_tell():
    matches = find_matches(DATA, image_items=np.zeros(NUM_IMAGES, dtype=np.int64))
    for batch in batches(make_source(matches=matches), make_table()):
        assert batch.views["image"].ids.tolist() == [0] * 6
        assert all(set(batch.views["text"].ids.tolist()) <= set(line) for line in batch.known.tolist()), (
            "every text is known to match every image"
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_going_on_at_any_step_gives_the_same_batches(way, start):
    whole = [flat(batch) for batch in batches(make_source(**way), make_table())]
    rest = [flat(batch) for batch in batches(make_source(**way), make_table(), start_step=start)]
    assert rest == whole[start:]


@pytest.mark.parametrize("way", WAYS)
def test_other_seeds_and_rounds_draw_other_batches(way):
    source, table = make_source(**way), make_table()
    found = [
        flat(batches(source, table, seed=seed, round=round)[0]) for seed, round in ((3, 1), (4, 1), (3, 2))
    ]
    for part in range(3):
        assert found[0][part] != found[1][part] and found[0][part] != found[2][part]


def test_the_order_of_images_runs_on_over_rounds():
    source = make_source(num_negatives=0)
    whole = [batch.views["image"].ids.tolist() for batch in batches(source, num_steps=13)]
    cut, before = [], 0
    for round, steps in enumerate((2, 7, 1, 3)):
        found = batches(source, round=round, num_steps=steps, steps_before=before)
        cut += [batch.views["image"].ids.tolist() for batch in found]
        before += steps
    assert cut == whole


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("world", [2, 4])
def test_the_slices_of_all_ranks_are_the_batch_of_one(way, world):
    source, table = make_source(**way, batch_size=12), make_table()
    slices = [batches(source, table, rank=rank, world=world, num_steps=4) for rank in range(world)]
    for step, batch in enumerate(batches(source, table, num_steps=4)):
        parts = [each[step] for each in slices]
        assert torch.equal(torch.cat([part.known for part in parts]), batch.known)
        for kind, view in batch.views.items():
            assert torch.equal(torch.cat([part.views[kind].ids for part in parts]), view.ids)
            if kind != "image":
                assert list(chain(*(texts(part.views[kind]) for part in parts))) == texts(view)
        pixels = [part.views["image"].inputs.values for part in parts]
        assert torch.equal(torch.cat(pixels), batch.views["image"].inputs.values)


def test_real_views_are_the_same_bits_on_two_ranks():
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 12, 12, 3), dtype=np.uint8)
    views = build_views(AugmentationConfig(), size=8, mean=[0.5] * 3, std=[0.2] * 3)
    source = make_source(replace(DATA, images=ArrayImages(pixels)), augment=views.first)
    slices = [batches(source, num_steps=2, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(batches(source, num_steps=2)):
        joined = torch.cat([each[step].views["image"].inputs.values for each in slices])
        assert joined.shape == (6, 3, 8, 8) and torch.equal(joined, batch.views["image"].inputs.values)


def test_without_augmentation_images_are_those_of_the_evaluation():
    for batch in batches(make_source(augment=None, num_negatives=0), num_steps=4):
        values = (batch.views["image"].inputs.values[:, 0, 0, 0] * 255).round().long()
        assert values.tolist() == batch.views["image"].ids.tolist()


def test_clusters_hold_the_mined_neighbours():
    table, source = make_table(), make_source()
    matches = find_matches(DATA)
    lines = {
        query: [row for row in line if row >= 0]
        for query, line in zip(table.queries.tolist(), table.rows.tolist(), strict=True)
    }
    mined_places = 0
    for batch in batches(source, table, num_steps=120):
        images, items = batch.views["image"].ids.tolist(), set(batch.views["image"].ids.tolist())
        captions = list(zip(images, batch.views["text"].ids.tolist(), strict=True))
        for seed in range(0, 6, 3):
            # Copies of an image are three lines of the table at most; any may be the seed.
            seeds = np.flatnonzero(matches.image_items == images[seed]).tolist()
            wanted = [
                {
                    (int(matches.image_items[DATA.caption_images[row]]), int(matches.caption_items[row]))
                    for row in lines.get(image, [])
                }
                for image in seeds
                if image in TRAIN
            ]
            mined = [[pair for pair in captions[seed + 1 : seed + 3] if pair in found] for found in wanted]
            mined_places += max(map(len, mined))
            # Full, or everything that is left stands elsewhere in the batch.
            assert any(
                len(there) == 2 or {item for item, _ in found} <= items
                for there, found in zip(mined, wanted, strict=True)
            )
    assert mined_places > 300


def test_each_image_is_a_seed_once_in_as_many_epochs_as_a_cluster_has_images():
    groups = np.arange(24, dtype=np.int64)
    for first in (0, 3, 6):
        seeds = Counter()
        for epoch in range(first, first + 3):
            order = cluster_order(TRAIN, groups, batch_size=6, cluster=3, seed=1, epoch=epoch)
            assert sorted(order.tolist()) == TRAIN.tolist()
            seeds.update(order.reshape(-1, 6)[:, :2].reshape(-1).tolist())
        assert seeds == dict.fromkeys(TRAIN.tolist(), 1)


def test_a_table_without_neighbours_gives_plain_pairs():
    source = make_source()
    empty = Table(0, TRAIN, np.full((24, 3), -1))
    assert [flat(batch) for batch in batches(source, empty)] == [flat(batch) for batch in batches(source)]


def test_mined_texts_are_of_the_anchor_and_empty_places_are_nobody():
    source, table, matches = make_source(mined="texts", num_negatives=2), make_table(), find_matches(DATA)
    lines = dict(zip(table.queries.tolist(), table.rows.tolist(), strict=True))
    filled = 0
    plain = batches(make_source(mined="texts", num_negatives=0), num_steps=40)
    for batch, without in zip(batches(source, table, num_steps=40), plain, strict=True):
        assert flat(without)[1]["text"] == flat(batch)[1]["text"], "only the view negative is new"
        ids, tokens = batch.views["negative"].ids.view(-1, 2).tolist(), texts(batch.views["negative"])
        for row, item in enumerate(batch.views["image"].ids.tolist()):
            choices = [
                Counter(int(matches.caption_items[one]) for one in lines.get(image, []) if one >= 0)
                for image in np.flatnonzero(matches.image_items == item).tolist()
                if image in TRAIN
            ]
            mine = Counter(one for one in ids[row] if one >= 0)
            assert any(mine.total() == min(2, all_.total()) and not mine - all_ for all_ in choices)
            filled += mine.total()
        for item, row in zip(chain(*ids), tokens, strict=True):
            assert row == tokenize([DATA.captions[0]])[0].tolist()[:1] if item < 0 else len(row) > 1
    assert filled > 300


def test_edits_are_items_of_their_own():
    source = make_source(edits=2, num_negatives=0)
    for batch in batches(source, num_steps=20):
        ids = batch.views["edit"].ids.tolist()
        there = [item for item in ids if item >= 0]
        assert len(ids) == 12 and len(there) > 6 and len(set(there)) == len(there)
        assert min(there) >= len(DATA.captions)
        for row, tokens in enumerate(texts(batch.views["edit"])):
            own = texts(batch.views["text"])[row // 2]
            assert tokens != own and (ids[row] < 0) == (len(tokens) == 1)


def test_captions_that_cannot_be_edited_leave_padding():
    data = replace(DATA, captions=[f"one{row}" for row in range(len(DATA.captions))])
    for batch in batches(make_source(data, edits=1)):
        assert batch.views["edit"].ids.tolist() == [-1] * 6
        assert {len(tokens) for tokens in texts(batch.views["edit"])} == {1}


@pytest.mark.parametrize(
    ("options", "call", "line"),
    [
        ({"batch_size": 25}, {}, r"batch size 25; valid is 1 to 24 \(the train images\)"),
        ({"batch_size": 8}, {}, "batch size 8: not a multiple of 3, an image and its 2 mined pairs"),
        ({}, {"world": 4}, "batch size 6 cannot be cut into 4 equal parts"),
        ({"num_negatives": 5}, {}, "5 negatives an image, but the table of negatives has 1 columns"),
    ],
)
def test_what_does_not_fit_is_one_line(options, call, line):
    table = Table(0, np.array([1]), np.array([[2]]))
    with pytest.raises(InputError, match=line):
        make_source(**options).batches(table, **{"seed": 0, "round": 0, "num_steps": 1, **call})


def test_a_table_of_other_data_is_refused():
    table = Table(0, np.array([1]), np.array([[0, len(DATA.captions)]]))
    with pytest.raises(InputError, match=f"it names image row 1 and caption row {len(DATA.captions)}"):
        batches(make_source(), table)


def test_a_train_caption_without_a_token_is_named():
    def silent(texts):
        tokens = tokenize(texts)
        offsets = tokens.offsets.copy()
        offsets[5:] -= tokens.counts[4]
        return replace(tokens, offsets=offsets, values=tokens.values[: offsets[-1]])

    first = DATA.captions[4]
    with pytest.raises(InputError, match=f"1 train captions have no token .* 'image 2': '{first}'"):
        ImageTextBatches(
            DATA,
            matches=find_matches(DATA),
            tokenize=silent,
            prepare=lambda images: images.float(),
            augment=None,
            batch_size=6,
            device=torch.device("cpu"),
        )

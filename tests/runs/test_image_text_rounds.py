import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_text_methods import build_clip
from tiny_image_text import make_data

from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
from retrieval_cl.encoders.load_image_text import build_image_text_encoder
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.searchers import exact_search
from retrieval_cl.mining.table import SOURCES
from retrieval_cl.runs.image_text_reverse import through_captions
from retrieval_cl.runs.image_text_rounds import ImageTextMiner, RowVectors
from retrieval_cl.runs.image_text_texts import TrainTexts
from retrieval_cl.runs.image_text_vectors import ImageTextVectors
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.sources.image_text.relations import find_matches
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.trainer import start_run

DIM = 4
BOTH = {"other": {"least": 1}}


class Made:
    """Random unit rows; equal captions have equal ones, and an image those of a caption, disturbed."""

    def __init__(self, data, matches, *, seed=0):
        generator = np.random.default_rng(seed)
        texts = generator.normal(size=(len(data.captions), DIM))[matches.caption_items]
        first = np.searchsorted(data.caption_images, np.arange(len(data.images)))
        pictures = texts[first] + 0.7 * generator.normal(size=(len(first), DIM))
        self._texts, self._images = (
            (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            for rows in (texts, pictures)
        )

    def images(self, rows):
        return self._images[rows]

    def captions(self, rows):
        return self._texts[rows]


def mine(tmp_path, data, matches, *, seed=0, run_seed=0, **settings):
    """The table, what produced it, and its counts."""
    vectors, log = Made(data, matches, seed=seed), MetricsLog(tmp_path / "metrics.jsonl")
    config = MiningConfig(**{"depth": 12, "num_negatives": 4, **settings})
    miner = ImageTextMiner(vectors, data=data, matches=matches, mining=config, watch=Stopwatch(), log=log)
    run = start_run(build_clip(), TrainingConfig(seed=run_seed), steps_per_epoch=3)
    return miner(run), vectors, miner.rounds[0].counts


def slow_lists(data, matches, vectors, image, *, depth):
    """Texts by either direction, best first: (item, score, image whose caption it is or None)."""
    train = data.splits["train"].tolist()
    captions = [row for row in range(len(data.captions)) if data.caption_images[row] in train]

    def cosine(left, right):
        return float(left.astype(np.float64) @ right.astype(np.float64))

    query = vectors._images[image]
    items = sorted({int(matches.caption_items[row]) for row in captions})
    dense = sorted((-cosine(query, vectors._texts[item]), item) for item in items)[:depth]
    own = [row for row in captions if data.caption_images[row] == image]
    reverse = sorted(
        (-max(cosine(vectors._images[other], vectors._texts[row]) for row in own), other) for other in train
    )[:depth]
    other = []
    for _, found in reverse:
        theirs = {int(matches.caption_items[row]) for row in captions if data.caption_images[row] == found}
        score, item = min((-cosine(query, vectors._texts[item]), item) for item in theirs)
        other.append((item, -score, found))
    return [(item, -score, None) for score, item in dense], other


def slow_mined(data, matches, vectors, image, *, config):
    """Negatives of one image, one rule after the other, by loops."""
    train = set(data.splits["train"].tolist())
    dense, other = slow_lists(data, matches, vectors, image, depth=config.depth)
    both = [(rank, "dense", *one) for rank, one in enumerate(dense)]
    if "other" in config.quotas:
        both += [(rank, "other", *one) for rank, one in enumerate(other)]
    known = set(matches.known[image].tolist())
    holders = {
        item: {
            int(data.caption_images[row])
            for row in range(len(data.captions))
            if matches.caption_items[row] == item and data.caption_images[row] in train
        }
        for _, _, item, _, _ in both
    }
    positives = [
        float(vectors._texts[item].astype(np.float64) @ vectors._images[image])
        for item in known
        if any(
            matches.caption_items[row] == item and data.caption_images[row] in train
            for row in range(len(data.captions))
        )
    ]
    limit = min(positives) - config.relative_margin * abs(min(positives))
    kept = []
    for rank, source, item, score, found in both:
        best = min(one[0] for one in both if one[2] == item)
        first = next(one for one in both if one[2] == item and one[0] == best)
        near = config.near_vector is not None and any(
            float(vectors._images[image] @ vectors._images[holder]) >= config.near_vector
            for holder in holders[item]
        )
        if item in known or near or (rank, source) != first[:2] or score > limit:
            continue
        if config.rank_min <= rank < config.last_rank:
            kept.append((score, item, source, found))
    kept.sort(key=lambda one: (-one[0], one[1]))
    wanted = [one for one in kept if one[2] == "other"][
        : config.quotas["other"].least if config.quotas else 0
    ]
    chosen = wanted + [one for one in kept if one not in wanted]
    return sorted(chosen[: config.num_negatives], key=lambda one: (-one[0], one[1]))


CASES = [
    {"relative_margin": 0.0},
    {"relative_margin": 0.05, "quotas": BOTH},
    {"relative_margin": 0.0, "quotas": BOTH, "rank_min": 2, "rank_max": 9},
    {"relative_margin": 0.0, "quotas": BOTH, "near_vector": 0.8},
    {"relative_margin": 0.0, "near_vector": 0.6},
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", CASES)
def test_mined_negatives_equal_slow_loops(tmp_path, settings, seed):
    data = make_data(seed)
    matches = find_matches(data)
    table, vectors, counts = mine(tmp_path, data, matches, seed=seed, **settings)
    config = MiningConfig(**{"depth": 12, "num_negatives": 4, **settings})
    assert table.queries.tolist() == data.splits["train"].tolist()
    for line, image in enumerate(table.queries.tolist()):
        expected = slow_mined(data, matches, vectors, image, config=config)
        rows = [row for row in table.rows[line].tolist() if row >= 0]
        sources = [SOURCES[source] for source in table.sources[line, : len(rows)]]
        assert matches.caption_items[rows].tolist() == [item for _, item, _, _ in expected]
        assert sources == [source for _, _, source, _ in expected]
        assert np.allclose(table.scores[line, : len(rows)], [score for score, *_ in expected], atol=1e-6)
        for row, (_, _, source, found) in zip(rows, expected, strict=True):
            assert data.caption_images[row] in data.splits["train"]
            if source == "other":
                assert data.caption_images[row] == found, "the pair is that of the image that was found"
    assert counts.num_queries == 24 and sum(counts.drawn.values()) == np.count_nonzero(table.rows >= 0) > 10
    assert ("other" in counts.drawn) == ("quotas" in settings)
    assert counts.removed.get("near_image", 0) > 0 or "near_vector" not in settings


def test_no_negative_is_a_caption_of_the_image_or_of_a_copy_of_it(tmp_path):
    data = make_data()
    items = np.arange(30, dtype=np.int64) // 3
    matches = find_matches(data, image_items=items)
    settings = {"relative_margin": None, "depth": 60, "num_negatives": 40, "quotas": BOTH}
    table, *_ = mine(tmp_path, data, matches, shortage="random", **settings)
    for image, rows in zip(table.queries.tolist(), table.rows.tolist(), strict=True):
        found = [int(matches.caption_items[row]) for row in rows if row >= 0]
        assert len(set(found)) == len(found) and not set(found) & set(matches.known[image].tolist())


@pytest.mark.parametrize("limit", [0.3, 0.8])
def test_random_negatives_too_are_of_no_near_image(tmp_path, limit):
    data = make_data()
    matches = find_matches(data)
    settings = {"relative_margin": None, "depth": 4, "num_negatives": 4, "shortage": "random"}
    table, vectors, counts = mine(tmp_path, data, matches, near_vector=limit, **settings)
    for image, rows in zip(table.queries.tolist(), table.rows.tolist(), strict=True):
        for row in rows:
            same = data.caption_images[matches.caption_items == matches.caption_items[row]]
            same = same[np.isin(same, data.splits["train"])]
            assert row < 0 or (vectors._images[same] @ vectors._images[image]).max() < limit
    assert counts.removed["near_image"] > 0 and counts.drawn["random"] > 0


def test_a_text_of_many_images_comes_with_any_of_them(tmp_path):
    data = make_data()
    captions = [f"text {image % 4}" for image in data.caption_images.tolist()]
    data = replace(data, captions=captions, same=np.arange(30))
    matches = find_matches(data)
    settings = {"relative_margin": None, "depth": 4, "num_negatives": 3}
    rows = [mine(tmp_path, data, matches, run_seed=seed, **settings)[0].rows for seed in range(6)]
    again = mine(tmp_path, data, matches, run_seed=0, **settings)[0].rows
    assert np.array_equal(again, rows[0]) and not np.array_equal(rows[0], rows[1])
    drawn = np.concatenate(rows)
    # One negative of each of the three other texts, and over all draws every train caption.
    assert all(len(set(np.array(captions)[line])) == 3 for line in drawn)
    assert set(drawn.reshape(-1).tolist()) == set(data.captions_of(data.splits["train"]).tolist())


@pytest.mark.parametrize("size", [1, 5, 24])
def test_the_reverse_direction_is_the_same_in_any_chunks(size):
    data = make_data()
    matches = find_matches(data)
    texts, vectors = TrainTexts.of(data, matches), Made(data, matches)
    images, captions = vectors.images(texts.images), vectors.captions(texts.first)
    search = exact_search(images)
    whole = through_captions(images, captions, texts.own, search=search, depth=7)
    parts = through_captions(images, captions, texts.own, search=search, depth=7, chunk_size=size)
    assert np.array_equal(whole.images, parts.images) and np.array_equal(whole.texts.rows, parts.texts.rows)
    assert np.array_equal(whole.texts.scores, parts.texts.scores) and (whole.images >= 0).all()


def test_what_a_round_did_is_kept_and_logged(tmp_path):
    data = make_data()
    _, _, counts = mine(tmp_path, data, find_matches(data), relative_margin=0.0)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["round"] == 0 and line["mining"] == json.loads(json.dumps(counts.to_dict()))


@pytest.fixture
def vectors():
    data = make_data()
    config = ImageTextEncoderConfig(
        dim=8,
        image=ImageEncoderConfig(kind="convnet", width=8, depths=(1, 1), size=8),
        text=EncoderConfig(kind="static", dim=8, vocab_size=60, init="random"),
    )
    encoder = build_image_text_encoder(config, train_captions=data.captions, seed=0)
    return ImageTextVectors(data, encoder, precision="fp32")


def test_vectors_are_those_of_the_rows_asked_for(vectors):
    assert isinstance(vectors, RowVectors)
    rows = np.array([7, 2, 9])
    encoder, data = vectors.encoder, make_data()
    assert np.array_equal(vectors.images(rows), encoder.encode_images(data.images, rows=rows))
    expected = encoder.encode_texts([data.captions[row] for row in rows])
    assert np.array_equal(vectors.captions(rows), expected)


def test_vectors_are_made_once_a_step_and_anew_after_it(vectors):
    rows = np.array([3, 4])
    first = vectors.images(rows), vectors.captions(rows)
    assert vectors.images(rows) is first[0] and vectors.captions(rows) is first[1]
    with torch.no_grad():
        for weight in vectors.encoder.projections.parameters():
            weight.neg_()
    vectors.on_step(start_run(build_clip(), TrainingConfig(), steps_per_epoch=1), torch.zeros(()), {})
    for before, after in zip(first, (vectors.images(rows), vectors.captions(rows)), strict=True):
        assert np.allclose(before, -after, atol=1e-6)

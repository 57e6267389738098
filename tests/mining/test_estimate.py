"""The false-negative rate of data where it is known, and what is held back for it."""

from functools import partial

import numpy as np
import pytest

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.estimate import (
    held_back_rates,
    hold_back,
    sweep_held_back,
    sweep_teacher,
    teacher_rate,
)
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.table import NegativeTable

ANSWERS, DIM = 4, 32


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def population(num_queries, seed):
    """Queries with four right answers each: some near their query, some as far as the next topic's."""
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((num_queries // 5, DIM))
    queries = np.repeat(topics, 5, axis=0) + 0.8 * generator.standard_normal((num_queries, DIM))
    spread = generator.choice([0.5, 1.6], size=(num_queries, ANSWERS, 1))
    answers = queries[:, None] + spread * generator.standard_normal((num_queries, ANSWERS, DIM))
    truth = Ragged(
        np.arange(0, num_queries * ANSWERS + 1, ANSWERS), np.arange(num_queries * ANSWERS, dtype=np.int64)
    )
    return unit(queries), unit(answers.reshape(-1, DIM)), truth


def mine_for(queries, passages, positives, numbers, config, margin):
    return mine(
        queries[numbers],
        passages,
        queries=numbers,
        positives=positives,
        groups=np.arange(len(passages)),
        config=config.model_copy(update={"relative_margin": margin}),
        seed=0,
        round=0,
    )


CONFIG = MiningConfig(depth=30, num_negatives=4)


def estimate(num_queries, seed, *, share=0.5, margin=0.05, config=CONFIG):
    queries, passages, truth = population(num_queries, seed)
    groups = np.arange(len(passages))
    held = hold_back(
        truth, queries=np.arange(num_queries), groups=groups, share=share, seed=seed, most=num_queries
    )
    table, _ = mine_for(queries, passages, held.shown, held.numbers, config, margin)
    return held_back_rates(table, held, groups=groups)


@pytest.mark.parametrize("margin", [None, 0.05])
def test_the_known_rate_lies_within_the_interval_of_a_small_sample(margin):
    queries, passages, truth = population(1600, 99)
    groups = np.arange(len(passages))
    # Of every other query the miner is told two answers of four: what it draws of the others
    # is false, and known to be so. The estimate sees the other half alone, of which all answers are judged.
    half = np.arange(1, 1600, 2)
    judged = Ragged(np.arange(0, 1601, 2), truth.values.reshape(-1, ANSWERS)[half][:, [0, 2]].reshape(-1))
    table, _ = mine_for(queries, passages, judged, half, CONFIG, margin)
    there = table.rows >= 0
    true = (there & (table.rows // ANSWERS == half[:, None])).sum() / there.sum()
    assert 0.02 < true < 0.6
    found = []
    for seed in range(5):
        first = truth.take(half - 1)
        held = hold_back(first, queries=half - 1, groups=groups, share=0.5, seed=seed, most=300)
        table, _ = mine_for(queries, passages, held.shown, 2 * held.numbers, CONFIG, margin)
        found.append(held_back_rates(table, held, groups=groups).rate)
    assert sum(rate.low <= true <= rate.high for rate in found) >= 4
    assert all(rate.high - rate.low < 0.1 for rate in found)


def test_the_rate_is_the_chance_to_be_drawn_times_the_hidden_over_the_negatives():
    half, quarter = (estimate(400, 1, share=share) for share in (0.5, 0.25))
    assert half.hidden == 2 * quarter.hidden == 800
    for found in (half, quarter):
        assert found.rate.mean == pytest.approx(found.drawn.mean * found.hidden / found.rate.trials)
    assert 0 < quarter.rate.mean < 0.6 * half.rate.mean


def test_the_rate_counts_hidden_answers_as_a_slow_loop_does():
    queries, passages, truth = population(100, 5)
    groups = np.arange(len(passages))
    groups[1::40] = groups[0::40]  # some answers are copies
    held = hold_back(truth, queries=np.arange(100), groups=groups, share=0.5, seed=3, most=60)
    table, _ = mine_for(queries, passages, held.shown, held.numbers, CONFIG, 0.0)
    hits = trials = met = items = 0
    for line in range(len(held)):
        hidden = {groups[row] for row in held.hidden[line]}
        rows = [row for row in table.rows[line] if row >= 0]
        hits, trials = hits + sum(groups[row] in hidden for row in rows), trials + len(rows)
        met, items = met + len(hidden & {groups[row] for row in rows}), items + len(hidden)
    found = held_back_rates(table, held, groups=groups)
    assert hits > 5
    assert (found.rate.hits, found.rate.trials) == (hits, trials)
    assert (found.drawn.hits, found.drawn.trials, found.hidden) == (met, items, items)


def test_something_is_hidden_something_shown_and_copies_go_together():
    positives = Ragged.from_lists([[0], [1, 2, 3, 4], [5, 6], [7, 8], []])
    groups = np.arange(9)
    groups[6] = 5  # one item: nothing to hide
    groups[2] = 1
    held = hold_back(positives, queries=np.arange(5), groups=groups, share=0.5, seed=0, most=9)
    assert held.numbers.tolist() == [1, 3]
    for line, number in enumerate(held.numbers.tolist()):
        shown, hidden = set(held.shown[line].tolist()), set(held.hidden[line].tolist())
        assert shown and hidden and not shown & hidden
        assert shown | hidden == set(positives[number].tolist())
        assert not {groups[row] for row in shown} & {groups[row] for row in hidden}


@pytest.mark.parametrize(("share", "hidden"), [(0.01, 1), (0.5, 2), (0.75, 3), (1.0, 3)])
def test_the_share_is_rounded_and_never_all_or_nothing(share, hidden):
    positives = Ragged.from_lists([[0, 1, 2, 3]])
    held = hold_back(positives, queries=np.arange(1), groups=np.arange(4), share=share, seed=0, most=1)
    assert held.hidden.counts.tolist() == [hidden]


def test_what_is_hidden_depends_on_the_query_row_and_the_seed_alone():
    hide = partial(hold_back, groups=np.arange(40), share=0.5, most=9)
    lists = [list(range(10 * number, 10 * number + 10)) for number in range(4)]
    one = hide(Ragged.from_lists(lists), queries=np.arange(4), seed=0)
    turned = hide(Ragged.from_lists(lists[::-1]), queries=np.arange(4)[::-1].copy(), seed=0)
    other = hide(Ragged.from_lists(lists), queries=np.arange(4), seed=1)
    assert [one.hidden[i].tolist() for i in range(4)] == [turned.hidden[3 - i].tolist() for i in range(4)]
    assert one.hidden.values.tolist() != other.hidden.values.tolist()


def test_a_sweep_keeps_less_and_finds_fewer_with_each_larger_margin():
    queries, passages, truth = population(200, 7)
    groups = np.arange(len(passages))
    held = hold_back(truth, queries=np.arange(200), groups=groups, share=0.5, seed=0, most=200)
    sweep = sweep_held_back(
        partial(mine_for, queries, passages, held.shown, held.numbers, CONFIG),
        held,
        groups=groups,
        margins=(None, 0.0, 0.2, 0.5, 5.0),
    )
    assert [point.margin for point in sweep] == [None, 0.0, 0.2, 0.5]  # 5.0 leaves nothing
    kept = [point.kept for point in sweep]
    assert kept[0] == 1.0 and kept == sorted(kept, reverse=True) and kept[-1] < 0.5
    assert sweep[-1].rate.mean < sweep[1].rate.mean < sweep[0].rate.mean


def table_of(scores, teacher, positive_teacher):
    shape = scores.shape
    return NegativeTable(
        round=0,
        queries=np.arange(shape[0]),
        rows=np.where(teacher > -np.inf, np.arange(scores.size).reshape(shape), -1),
        scores=scores,
        ranks=np.zeros(shape, dtype=np.int32),
        sources=np.where(teacher > -np.inf, 0, -1).astype(np.int8),
        teacher=teacher,
        positives=np.zeros((shape[0], 1), dtype=np.int64),
        positive_teacher=positive_teacher[:, None],
    )


def test_teacher_agreement_equals_a_slow_loop_over_margins():
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 0.5, (50, 6)).astype(np.float32)
    teacher = (scores + generator.normal(0, 0.3, scores.shape)).astype(np.float32)
    teacher[:, -1] = scores[:, -1] = -np.inf
    positive = generator.normal(0.2, 0.4, 50).astype(np.float32)  # some are negative
    positive_teacher = generator.normal(0.3, 0.3, 50).astype(np.float32)
    points = sweep_teacher(
        table_of(scores, teacher, positive_teacher),
        teacher,
        positive=positive,
        positive_teacher=positive_teacher,
        margins=(None, 0.0, 0.1),
    )
    assert points[0].rate == teacher_rate(teacher, positive_teacher)
    for point in points:
        hits = trials = 0
        for line in range(50):
            for place in range(5):
                limit = float(positive[line]) - (point.margin or 0.0) * abs(float(positive[line]))
                if point.margin is None or scores[line, place] <= limit:
                    trials += 1
                    hits += bool(teacher[line, place] >= positive_teacher[line])
        assert (point.rate.hits, point.rate.trials, point.kept) == (hits, trials, trials / 250)

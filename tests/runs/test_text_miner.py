"""The miner of the `mine` command mines as training does, and hides what it is told to hide."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval_cl.indexing.exact import DEFAULT_MEMORY
from retrieval_cl.mining.estimate import held_back_rates, hold_back
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.remembering import remembering
from retrieval_cl.runs.text_miner import TextMiner
from retrieval_cl.sources.records import Qrels


def several_answers(text):
    """The same texts; each train query is also answered by the passage two further on."""
    train, size = text.data.splits["train"], len(text.data.passages)
    pairs = np.unique(
        np.concatenate(
            [
                np.stack([train.queries, train.passages], axis=1),
                np.stack([train.queries, (train.passages + 2) % size], axis=1),
            ]
        ),
        axis=0,
    )
    qrels = Qrels(pairs[:, 0].copy(), pairs[:, 1].copy(), np.ones(len(pairs), dtype=np.int64))
    return replace(text, data=replace(text.data, splits={**text.data.splits, "train": qrels}))


@pytest.fixture
def vectors(text, encoder):
    queries = text.data.splits["train"].judged_queries
    return (
        encoder.encode(text.query_tokens.take(queries), kind="query"),
        encoder.encode(text.passage_tokens, kind="passage"),
    )


def prepare(text, vectors, config):
    return TextMiner.prepare(
        text, *vectors, extra={}, config=config, seed=0, device="cpu", memory_bytes=DEFAULT_MEMORY
    )


@pytest.mark.parametrize("candidates", ["all", "train"])
def test_hidden_answers_stay_among_the_passages_searched_and_are_met(text, vectors, make_config, candidates):
    config = make_config("mining.relative_margin=null", f"mining.candidates={candidates}").mining
    miner = prepare(several_answers(text), vectors, config)
    quick, hideable = miner.to_hold_back()
    held = hold_back(hideable, queries=miner.queries, groups=miner.groups, share=0.5, seed=0, most=1000)
    assert len(held) > 20
    table, _ = quick.held_back(held, None)
    assert isinstance(table, NegativeTable) and table.queries.tolist() == miner.queries[held.numbers].tolist()
    rates = held_back_rates(table, held, groups=miner.groups)
    assert rates.rate.hits > 0
    for line in range(len(held)):
        assert not set(table.rows[line].tolist()) & set(held.shown[line].tolist())


def test_of_queries_with_the_same_text_one_alone_hides(text, vectors, make_config):
    text = several_answers(text)
    groups = text.query_groups.copy()
    queries = text.data.splits["train"].judged_queries
    groups[queries[5]] = groups[queries[0]]
    miner = prepare(replace(text, query_groups=groups), vectors, make_config().mining)
    _, hideable = miner.to_hold_back()
    assert hideable.counts[5] == 0 and hideable.counts[0] == miner.positives.counts[0] >= 3


def test_a_remembering_function_computes_once_and_tells_arguments_apart():
    asked = []
    call = remembering(lambda left, right: asked.append(right) or left.sum() + right)
    ones, twos = np.ones(3), np.full(3, 2.0)
    assert [call(ones, 1), call(ones, 1), call(twos, 1), call(ones, 2)] == [4, 4, 7, 5]
    assert asked == [1, 1, 2]

"""Audit counts against slow loops over places."""

from collections import Counter

import numpy as np
import pytest

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.audit import compare_tables, count_judged, count_table, is_known
from retrieval_cl.mining.table import SOURCES, NegativeTable


def make(seed, num=40, width=5, passages=60, queries=None):
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.choice(passages, width, replace=False) for _ in range(num)])
    rows[generator.random(rows.shape) < 0.2] = -1
    rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
    there = rows >= 0
    return NegativeTable(
        round=0,
        queries=np.sort(generator.choice(100, num, replace=False)) if queries is None else queries,
        rows=rows,
        scores=np.where(there, generator.normal(0, 1, rows.shape), -np.inf).astype(np.float32),
        ranks=np.where(there, 3, -1).astype(np.int32),
        sources=np.where(there, generator.integers(0, 4, rows.shape), -1).astype(np.int8),
    )


def places(table):
    for line in range(len(table)):
        for row, source in zip(table.rows[line].tolist(), table.sources[line].tolist(), strict=True):
            if row >= 0:
                yield line, row, SOURCES[source]


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_a_slow_loop(seed):
    table, groups = make(seed), np.arange(60)
    groups[1::3] = groups[0::3]  # a third are copies
    facts = count_table(table, groups=groups)
    all_ = list(places(table))
    numbers = Counter(line for line, _, _ in all_)
    assert facts.per_query == Counter(numbers[line] for line in range(len(table)))
    assert facts.negatives == len(all_)
    for source in SOURCES:
        mine = [line for line, _, name in all_ if name == source]
        if mine:
            use = facts.per_source[source]
            assert (use.negatives, use.queries) == (len(mine), len(set(mine)))
        else:
            assert source not in facts.per_source
    equal = 0
    for line in range(len(table)):
        items = [groups[row] for one, row, _ in all_ if one == line]
        equal += len(items) - len(set(items))
    assert facts.equal_within == equal and equal > 0
    uses = Counter(row for _, row, _ in all_)
    assert facts.passages == len(uses) and facts.items == len({groups[row] for row in uses})
    assert facts.most_used == sorted(uses.items(), key=lambda one: (-one[1], one[0]))[:10]
    assert facts.to_dict()["per_query"].keys() == {str(number) for number in facts.per_query}


def test_an_empty_table_counts_0():
    table = make(0)
    empty = NegativeTable(
        0, table.queries, np.full_like(table.rows, -1), table.scores, table.ranks, table.sources
    )
    facts = count_table(empty, groups=np.arange(60))
    assert (facts.negatives, facts.passages, facts.most_used, facts.per_source) == (0, 0, [], {})
    judged = count_judged(empty, relevant=np.arange(5), same_query=Ragged.from_lists([[1]] * 40))
    assert (judged.negatives, judged.passages, judged.same_query) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_judged_negatives_equal_a_slow_loop(seed):
    table, generator = make(seed), np.random.default_rng(seed)
    relevant = np.sort(generator.choice(60, 20, replace=False))
    same = [generator.choice(60, generator.integers(0, 9)).tolist() for _ in range(len(table))]
    facts = count_judged(table, relevant=relevant, same_query=Ragged.from_lists(same))
    inside = [row for _, row, _ in places(table) if row in relevant]
    assert (facts.negatives, facts.passages) == (len(inside), len(set(inside)))
    assert facts.same_query == sum(row in same[line] for line, row, _ in places(table))
    assert facts.same_query > 0


def test_known_pairs_may_have_passages_beyond_those_asked_for():
    known = Ragged.from_lists([[900], [1]])
    assert is_known(np.array([0, 1, 1]), np.array([1, 1, 0]), known=known).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(4))
def test_the_difference_of_tables_equals_sets(seed):
    new, old = make(seed), make(seed + 50)
    found = compare_tables(new, old)
    ours, theirs = ({(int(one.queries[line]), row) for line, row, _ in places(one)} for one in (new, old))
    both = set(new.queries.tolist()) & set(old.queries.tolist())
    ours, theirs = ({one for one in pairs if one[0] in both} for pairs in (ours, theirs))
    assert (found.shared, found.added, found.gone) == (
        len(ours & theirs),
        len(ours - theirs),
        len(theirs - ours),
    )
    assert (found.queries, found.only_new, found.only_old) == (
        len(both),
        len(new) - len(both),
        len(old) - len(both),
    )
    assert found.shared > 0


def test_a_table_shares_all_with_itself_and_nothing_without_common_queries():
    one = make(0, queries=np.arange(40))
    same, other = compare_tables(one, one), compare_tables(one, make(1, queries=np.arange(50, 90)))
    assert (same.shared_share, same.added, same.gone) == (1.0, 0, 0)
    assert (other.shared_share, other.queries, other.added, other.only_new) == (0.0, 0, 0, 40)

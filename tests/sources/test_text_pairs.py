from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources.records import Qrels
from retrieval_cl.sources.text_pairs import TextPairs

NUM_QUERIES, NUM_PASSAGES = 23, 40


@dataclass(frozen=True)
class Table:
    round: int
    queries: np.ndarray
    rows: np.ndarray


def random_tokens(generator, num_rows):
    counts = generator.integers(1, 6, num_rows)
    return Ragged.from_lists([generator.integers(0, 99, count).tolist() for count in counts], dtype=np.int32)


def make_case(seed=0, **options):
    """A source over random data, with its table and what a slow reference needs."""
    generator = np.random.default_rng(seed)
    # Queries 20, 21 and 22 are no train queries: 20 has a judgement of grade 0 alone, the others none.
    relevant = {
        query: set(generator.choice(NUM_PASSAGES, 1 + query % 3, replace=False).tolist())
        for query in range(20)
    }
    pairs = sorted(
        (query, passage, 1 + passage % 2) for query, found in relevant.items() for passage in found
    )
    columns = np.array([*pairs, (20, 0, 0)], dtype=np.int64)
    groups = np.arange(NUM_PASSAGES, dtype=np.int64)
    groups[[7, 9, 30]] = 5
    query_groups = np.arange(NUM_QUERIES, dtype=np.int64)
    query_groups[[4, 21]] = 2
    queries = generator.permutation(NUM_QUERIES)[:18]
    rows = generator.integers(-1, NUM_PASSAGES, (18, 5))
    rows[3] = -1
    rows[4] = [-1, 8, -1, -1, 11]
    settings = {"batch_size": 4, "num_negatives": 2, **options}
    source = TextPairs(
        random_tokens(generator, NUM_QUERIES),
        random_tokens(generator, NUM_PASSAGES),
        qrels=Qrels(columns[:, 0], columns[:, 1], columns[:, 2]),
        groups=groups,
        query_groups=query_groups,
        **settings,
    )
    return source, Table(0, queries, rows), relevant, groups, query_groups


def batches(source, table, **options):
    settings = {"seed": 3, "round": 1, "num_steps": 13, **options}
    return list(source.batches(table, **settings))


def inputs(view):
    return [row.tolist() for row in (view.inputs[i] for i in range(len(view.inputs)))]


def flat(batch):
    """Everything in a batch as plain lists, for comparison."""
    views = {kind: (inputs(view), view.ids.tolist()) for kind, view in batch.views.items()}
    return views, batch.known.tolist()


def test_each_epoch_has_each_train_query_once_in_a_fresh_order():
    source, table, relevant, *_ = make_case()
    assert source.steps_per_epoch == 5
    found = batches(source, table, num_steps=10)
    epochs = [
        torch.cat([batch.views["query"].ids for batch in found[start : start + 5]]).tolist()
        for start in (0, 5)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(relevant)
    assert epochs[0] != epochs[1]


def queries_of(found):
    return [batch.views["query"].ids.tolist() for batch in found]


@pytest.mark.parametrize("rounds", [(10,), (2, 2, 2, 2, 2), (1, 7, 2), (3, 4, 3)])
def test_order_of_the_queries_runs_on_over_rounds_however_they_are_cut(rounds):
    source, table, relevant, *_ = make_case()
    found, before = [], 0
    for number, steps in enumerate(rounds):
        found += queries_of(batches(source, table, round=number, num_steps=steps, steps_before=before))
        before += steps
    assert found == queries_of(batches(source, table, num_steps=10))
    for epoch in (found[:5], found[5:]):
        assert sorted(query for batch in epoch for query in batch) == sorted(relevant)


def test_ragged_last_batch_is_dropped():
    source, table, relevant, *_ = make_case(batch_size=6)
    found = batches(source, table, num_steps=source.steps_per_epoch)
    assert len(found) == 3 and all(len(batch.views["query"].ids) == 6 for batch in found)
    seen = Counter(query for batch in found for query in batch.views["query"].ids.tolist())
    assert len(seen) == 18 and set(seen.values()) == {1} and set(seen) < set(relevant)


def test_row_of_each_view_belongs_to_the_query_of_that_row():
    source, table, relevant, groups, _ = make_case()
    line_of = {query: line for line, query in enumerate(table.queries.tolist())}
    for batch in batches(source, table):
        queries = batch.views["query"].ids.tolist()
        assert inputs(batch.views["query"]) == [source.query_tokens[query].tolist() for query in queries]
        positive = batch.views["positive"]
        for row, query in enumerate(queries):
            # Some positive of the query has both this item id and these tokens.
            assert any(
                groups[passage] == positive.ids[row]
                and source.passage_tokens[passage].tolist() == inputs(positive)[row]
                for passage in relevant[query]
            )
        negative = batch.views["negative"]
        assert len(negative.ids) == 2 * len(queries)
        for place, (tokens, item) in enumerate(zip(inputs(negative), negative.ids.tolist(), strict=True)):
            line = line_of.get(queries[place // 2])
            candidates = [] if line is None else [row for row in table.rows[line].tolist() if row >= 0]
            if item == -1:
                assert len(tokens) == 1
                assert len(candidates) < 2
            else:
                assert any(
                    groups[row] == item and source.passage_tokens[row].tolist() == tokens
                    for row in candidates
                )


def test_known_ids_are_the_groups_of_all_positives_of_all_queries_with_that_text():
    source, table, relevant, groups, query_groups = make_case()
    for batch in batches(source, table):
        for row, query in enumerate(batch.views["query"].ids.tolist()):
            same = [other for other in relevant if query_groups[other] == query_groups[query]]
            expected = {int(groups[passage]) for other in same for passage in relevant[other]}
            known = [item for item in batch.known[row].tolist() if item != -1]
            assert sorted(known) == sorted(expected)
            assert int(batch.views["positive"].ids[row]) in expected


def test_judgements_of_grade_zero_are_no_positives():
    source, *_ = make_case()
    assert 20 not in source.train_queries and len(source.positives[20]) == 0


def test_every_positive_gets_its_turn():
    source, _, relevant, groups, _ = make_case()
    seen = {query: set() for query in relevant}
    for batch in batches(source, None, num_steps=300):
        for query, item in zip(
            batch.views["query"].ids.tolist(), batch.views["positive"].ids.tolist(), strict=True
        ):
            seen[query].add(item)
    assert seen == {query: {int(groups[passage]) for passage in found} for query, found in relevant.items()}


def test_every_negative_gets_its_turn_and_an_empty_place_only_where_others_are_used_up():
    source, table, *_ = make_case()
    query = int(table.queries[4])
    if query not in source.train_queries:
        table.queries[4], query = 19, 19
    seen = Counter()
    for batch in batches(source, Table(0, table.queries, table.rows), num_steps=200):
        row = batch.views["query"].ids.tolist()
        if query in row:
            place = 2 * row.index(query)
            seen[tuple(sorted(batch.views["negative"].ids[place : place + 2].tolist()))] += 1
    assert set(seen) == {(8, 11)}


@pytest.mark.parametrize("num_negatives", [1, 3, 5])
def test_columns_of_the_table_are_drawn_without_repeat(num_negatives):
    source, _, *_ = make_case(num_negatives=num_negatives)
    # Passages without copies, so that ids tell the columns apart.
    rows = np.tile(np.arange(10, 15), (NUM_QUERIES, 1))
    drawn = Counter()
    for batch in batches(source, Table(0, np.arange(NUM_QUERIES), rows), num_steps=200):
        ids = batch.views["negative"].ids.view(-1, num_negatives).tolist()
        assert all(len(set(row)) == num_negatives for row in ids)
        drawn.update(item for row in ids for item in row)
    expected = 200 * 4 * num_negatives / 5
    assert set(drawn) == set(range(10, 15))
    assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_no_table_or_no_negatives_gives_no_negative_view():
    source, table, *_ = make_case()
    assert all(set(batch.views) == {"query", "positive"} for batch in batches(source, None))
    source, table, *_ = make_case(num_negatives=0)
    assert all(set(batch.views) == {"query", "positive"} for batch in batches(source, table))


def test_going_on_at_any_step_gives_the_same_batches():
    source, table, *_ = make_case()
    whole = [flat(batch) for batch in batches(source, table)]
    assert len(whole) == 13
    for start in (0, 1, 4, 5, 7, 12, 13):
        assert [flat(batch) for batch in batches(source, table, start_step=start)] == whole[start:]
    later = [flat(batch) for batch in batches(source, table, steps_before=8)]
    assert later[0] != whole[8], "draws belong to the round, the order to the run"
    for start in (0, 1, 4, 13):
        found = batches(source, table, steps_before=8, start_step=start)
        assert [flat(batch) for batch in found] == later[start:]


def test_seed_and_round_alone_decide():
    first = [flat(batch) for batch in batches(*make_case()[:2])]
    assert [flat(batch) for batch in batches(*make_case()[:2])] == first
    assert [flat(batch) for batch in batches(*make_case()[:2], seed=4)] != first
    assert [flat(batch) for batch in batches(*make_case()[:2], round=2)] != first


@pytest.mark.parametrize("world", [2, 4])
def test_slices_of_all_ranks_make_up_the_batch_of_one(world):
    source, table, *_ = make_case()
    whole = batches(source, table)
    parts = [batches(source, table, rank=rank, world=world) for rank in range(world)]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        ranks = [part[step] for part in parts]
        assert torch.equal(torch.cat([rank.known for rank in ranks]), batch.known)
        for kind, view in batch.views.items():
            assert torch.equal(torch.cat([rank.views[kind].ids for rank in ranks]), view.ids)
            assert [row for rank in ranks for row in inputs(rank.views[kind])] == inputs(view)


def test_a_table_read_from_disk_gives_the_same_batches(tmp_path):
    source, table, *_ = make_case()
    np.save(tmp_path / "rows.npy", table.rows)
    mapped = Table(0, table.queries, np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert [flat(batch) for batch in batches(source, mapped)] == [
        flat(batch) for batch in batches(source, table)
    ]


def test_an_empty_table_gives_negatives_that_are_nobodys():
    source, *_ = make_case()
    empty = Table(0, np.zeros(0, dtype=np.int64), np.zeros((0, 5), dtype=np.int64))
    for batch in batches(source, empty):
        assert batch.views["negative"].ids.tolist() == [-1] * 8
        assert [len(row) for row in inputs(batch.views["negative"])] == [1] * 8


def test_batch_larger_than_the_train_queries_is_refused():
    with pytest.raises(InputError, match="batch size 21; valid is 1 to 20"):
        make_case(batch_size=21)


def test_batch_that_ranks_cannot_share_is_refused_before_the_first_step():
    source, table, *_ = make_case()
    with pytest.raises(InputError, match="cannot be cut into 3 equal parts"):
        source.batches(table, seed=0, round=1, num_steps=1, rank=0, world=3)


def test_table_with_too_few_columns_is_refused():
    source, table, *_ = make_case(num_negatives=6)
    with pytest.raises(InputError, match="6 negatives a pair, but the table of negatives has 5 columns"):
        source.batches(table, seed=0, round=1, num_steps=1)


@pytest.mark.parametrize(("queries", "row"), [([NUM_QUERIES], 0), ([0], NUM_PASSAGES)])
def test_table_of_other_data_is_refused(queries, row):
    source, *_ = make_case()
    table = Table(0, np.array(queries), np.full((1, 5), row))
    with pytest.raises(InputError, match="the table of negatives is of other data"):
        source.batches(table, seed=0, round=1, num_steps=1)

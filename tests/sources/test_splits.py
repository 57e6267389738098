import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.normalise import normalise_text
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts
from retrieval_cl.sources.splits import leaked_queries, move_queries, with_dev_split, without_leaks


def make_data(queries, **splits) -> RetrievalData:
    """Data with the given query texts; each split is a list of (query, passage, grade)."""

    def qrels(rows):
        columns = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
        return Qrels(columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy())

    return RetrievalData(
        name="made",
        passages=Texts([f"p{i}" for i in range(50)], [f"passage {i}" for i in range(50)]),
        queries=Texts([f"q{i}" for i in range(len(queries))], queries),
        splits={name: qrels(rows) for name, rows in splits.items()},
    )


def judged(data):
    return {
        split: sorted(
            (data.queries.texts[query], int(passage), int(grade))
            for query, passage, grade in zip(qrels.queries, qrels.passages, qrels.grades, strict=True)
        )
        for split, qrels in data.splits.items()
    }


TEXTS = [f"query number {i // 2}" if i % 2 else f"Query  number {i // 2}" for i in range(40)]
ROWS = [(i, i, 1) for i in range(40)] + [(i, 49, 0) for i in range(40)]


def test_every_judgement_of_train_goes_to_exactly_one_split():
    data = make_data(TEXTS, train=ROWS, test=[(0, 1, 1)])
    moved = with_dev_split(data, share=0.25, seed=0)
    assert sorted(judged(moved)["train"] + judged(moved)["dev"]) == judged(data)["train"]
    assert judged(moved)["test"] == judged(data)["test"]
    assert len(moved.splits["dev"].judged_queries) == 10


def test_queries_with_equal_text_move_together():
    moved = judged(with_dev_split(make_data(TEXTS, train=ROWS), share=0.25, seed=0))
    texts = [{normalise_text(text) for text, _, _ in moved[split]} for split in ("train", "dev")]
    assert (len(texts[0]), len(texts[1])) == (15, 5) and not texts[0] & texts[1]


def test_same_seed_same_split_in_any_order_and_another_seed_another():
    forward = judged(with_dev_split(make_data(TEXTS, train=ROWS), share=0.25, seed=0))
    turned = make_data(TEXTS[::-1], train=[(39 - query, passage, grade) for query, passage, grade in ROWS])
    assert judged(with_dev_split(turned, share=0.25, seed=0)) == forward
    assert judged(with_dev_split(make_data(TEXTS, train=ROWS), share=0.25, seed=1))["dev"] != forward["dev"]


def test_a_dev_split_that_is_there_stays():
    data = make_data(TEXTS, train=ROWS[:20], dev=ROWS[20:22])
    assert with_dev_split(data, share=0.5, seed=0) is data
    data = make_data(TEXTS, test=ROWS)
    assert with_dev_split(data, share=0.5, seed=0) is data


@pytest.mark.parametrize(("share", "num_dev"), [(1e-9, 1), (0.999, 19)])
def test_at_least_one_query_moves_and_one_stays(share, num_dev):
    moved = judged(with_dev_split(make_data(TEXTS, train=ROWS), share=share, seed=0))
    assert len({normalise_text(text) for text, _, _ in moved["dev"]}) == num_dev


def test_a_single_query_cannot_be_split():
    with pytest.raises(InputError, match="1 distinct train query"):
        move_queries(make_data(["one", "ONE"], train=[(0, 0, 1), (1, 1, 1)]), to="test", share=0.5, seed=0)


def test_train_queries_with_the_text_of_a_held_out_query_leave_training():
    queries = [
        "how to read",
        "How  to READ",
        "how to write",
        "how to walk",
        "how to run",
        "HOW TO RUN",
        "other",
    ]
    data = make_data(
        queries,
        train=[(0, 0, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (4, 5, 0), (6, 6, 1)],
        dev=[(5, 7, 1)],
        test=[(1, 1, 1), (3, 3, 1)],
    )
    assert leaked_queries(data).tolist() == [0, 3, 4]
    clean, count = without_leaks(data)
    assert count == 3
    assert judged(clean)["train"] == [("how to write", 2, 1), ("other", 6, 1)]
    assert judged(clean)["dev"] == judged(data)["dev"] and judged(clean)["test"] == judged(data)["test"]
    assert without_leaks(clean) == (clean, 0)


def test_a_set_without_train_has_no_leaks():
    data = make_data(TEXTS, test=ROWS)
    assert without_leaks(data) == (data, 0)


def test_a_train_split_without_others_has_no_leaks():
    data = make_data(TEXTS, train=ROWS)
    assert without_leaks(data) == (data, 0)


def test_training_on_nothing_but_leaks_is_refused():
    with pytest.raises(InputError, match="all 2 train queries are dev or test queries"):
        without_leaks(make_data(["a", "b"], train=[(0, 0, 1), (1, 0, 1)], test=[(0, 1, 1), (1, 1, 1)]))

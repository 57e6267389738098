import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.evaluation.results import (
    SystemScores,
    differences,
    mean_intervals,
    read_per_query,
    text_table,
    write_per_query,
)
from retrieval_cl.evaluation.significance import Interval


@pytest.fixture
def systems():
    rng = np.random.default_rng(0)
    metrics = ("recall@10", "mrr@10", "ndcg@10")
    return [SystemScores(name, {metric: rng.random(30) for metric in metrics}) for name in ("bm25", "mined")]


def test_per_query_results_come_back_to_the_bit(tmp_path, systems):
    ids = [f"q {n} \u2028 é" for n in range(30)]
    write_per_query(tmp_path / "queries.jsonl", systems, query_ids=ids)
    read_ids, read = read_per_query(tmp_path / "queries.jsonl")
    assert read_ids == ids and [system.name for system in read] == ["bm25", "mined"]
    for before, after in zip(systems, read, strict=True):
        assert list(before.metrics) == list(after.metrics)
        for metric, values in before.metrics.items():
            np.testing.assert_array_equal(values, after.metrics[metric])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: expected"),
        ('{"query": "a"}', "line 2: expected"),
        ('{"query": "a", "scores": {"bm25": {"recall@10": "x"}}}', "line 2: expected"),
        ('{"query": "a", "scores": {"other": {"recall@10": 1}}}', "line 2: other systems"),
    ],
)
def test_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "b", "scores": {"bm25": {"recall@10": 0.5}}}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"queries\.jsonl, {message}"):
        read_per_query(path)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'{"query": "b", "scores": {}}\n{"query": "\xff"}\n')
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        read_per_query(path)
    with pytest.raises(InputError, match="no such file"):
        read_per_query(tmp_path / "nowhere")


def test_table_holds_a_mean_with_interval_for_every_system_and_metric(systems):
    results = mean_intervals(systems)
    for system in systems:
        for metric, values in system.metrics.items():
            interval = results[system.name][metric]
            assert interval.low < interval.mean < interval.high
            assert interval.mean == pytest.approx(values.mean())


def test_text_table_aligns_columns():
    results = {
        "bm25": {"recall@10": Interval(0.5, 0.4, 0.6)},
        "a longer name": {"recall@10": Interval(1.0, 1.0, 1.0), "mrr@10": Interval(0.25, 0.2, 0.3)},
    }
    assert text_table(results).splitlines() == [
        "               recall@10             mrr@10",
        "bm25           0.500 [0.400, 0.600]  -",
        "a longer name  1.000 [1.000, 1.000]  0.250 [0.200, 0.300]",
    ]


def test_differences_are_paired_by_query(systems):
    better = SystemScores("better", {m: v + 0.01 for m, v in systems[0].metrics.items()})
    found = differences(better, systems[0])
    assert set(found) == {"recall@10", "mrr@10", "ndcg@10"}
    assert found["mrr@10"].p < 0.001 and found["mrr@10"].wins == 30

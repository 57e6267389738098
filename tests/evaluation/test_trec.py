import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.evaluation.trec import read_qrels, read_run, write_qrels, write_run

QUERIES, PASSAGES = ["q1", "q2", "q3"], [f"p{n}" for n in range(9)]


def test_run_comes_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.standard_normal((3, 4)).astype(np.float32), axis=1)
    scores[0, 1] = np.nextafter(scores[0, 0], np.float32(-np.inf))
    rows = np.stack([rng.permutation(9)[:4] for _ in range(3)])
    rows[1, 2:], scores[1, 2:] = -1, -np.inf
    rows[2], scores[2] = -1, -np.inf
    write_run(tmp_path / "run", Hits(scores, rows), query_ids=QUERIES, passage_ids=PASSAGES)
    again = read_run(tmp_path / "run", query_ids=QUERIES, passage_ids=PASSAGES)
    np.testing.assert_array_equal(again.rows, rows)
    np.testing.assert_array_equal(again.scores, scores)
    assert len((tmp_path / "run").read_text().splitlines()) == 6


def test_rank_is_ignored_ties_come_in_row_order_and_k_cuts(tmp_path):
    lines = ["q2 Q0 p5 1 0.5 x", "q2 Q0 p8 2 0.9 x", "q2 Q0 p1 3 0.5 x", "", "q1 Q0 p0 1 -3e-5 x"]
    (tmp_path / "run").write_text("\n".join(lines))
    hits = read_run(tmp_path / "run", query_ids=QUERIES, passage_ids=PASSAGES, k=2)
    np.testing.assert_array_equal(hits.rows, [[0, -1], [8, 1], [-1, -1]])
    assert hits.scores[2].tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 p1 1 0.5", r"line 2: 5 fields; expected 'query Q0 passage rank score tag'"),
        ("q1 Q0 p1 1 high x", r"line 2: score 'high'; expected a finite number"),
        ("q1 Q0 p1 1 nan x", r"line 2: score 'nan'"),
        ("q1 Q0 p1 1 1e300 x", r"line 2: score '1e300'"),
        ("q9 Q0 p1 1 0.5 x", r"line 2: query 'q9' is not in the data set"),
        ("q1 Q0 z 1 0.5 x", r"line 2: passage 'z' is not in the data set"),
        ("q1 Q0 p0 7 0.1 x", r"line 2: passage 'p0' stands twice for query 'q1'"),
    ],
)
def test_broken_line_of_a_run_is_named(tmp_path, line, message):
    (tmp_path / "run").write_text("q1 Q0 p0 1 0.5 x\n" + line + "\n")
    with pytest.raises(InputError, match="run, " + message):
        read_run(tmp_path / "run", query_ids=QUERIES, passage_ids=PASSAGES)


def test_qrels_come_back_sorted_with_their_grades(tmp_path):
    relevant, grades = Ragged.from_lists([[4, 1], [], [8]]), Ragged.from_lists([[2, 0], [], [-1]])
    write_qrels(tmp_path / "qrels", relevant, grades, query_ids=QUERIES, passage_ids=PASSAGES)
    again, again_grades = read_qrels(tmp_path / "qrels", query_ids=QUERIES, passage_ids=PASSAGES)
    assert [row.tolist() for row in (again[0], again[1], again[2])] == [[1, 4], [], [8]]
    assert again_grades.values.tolist() == [0, 2, -1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 0 p1 1.5", r"line 2: grade '1.5'; expected an integer"),
        ("q1 p1 1", r"line 2: 3 fields; expected 'query 0 passage grade'"),
        ("q1 0 p0 2", r"line 2: passage 'p0' stands twice"),
    ],
)
def test_broken_line_of_qrels_is_named(tmp_path, line, message):
    (tmp_path / "qrels").write_text("q1 0 p0 1\n" + line + "\n")
    with pytest.raises(InputError, match="qrels, " + message):
        read_qrels(tmp_path / "qrels", query_ids=QUERIES, passage_ids=PASSAGES)


def test_id_with_white_space_is_refused_before_anything_is_written(tmp_path):
    hits = Hits(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64))
    with pytest.raises(InputError, match="id 'a b' is empty or holds white space"):
        write_run(tmp_path / "run", hits, query_ids=["a b"], passage_ids=PASSAGES)
    with pytest.raises(InputError, match="id '' is empty"):
        write_run(tmp_path / "run", hits, query_ids=["a"], passage_ids=[""])
    assert list(tmp_path.iterdir()) == []


def test_empty_run_has_no_hits(tmp_path):
    (tmp_path / "run").write_text("")
    assert read_run(tmp_path / "run", query_ids=QUERIES, passage_ids=PASSAGES).rows.shape == (3, 0)

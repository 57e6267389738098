"""A teacher's scores come back from disk, old tables load, and every shape writes the scores asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.cross_encoder import TextReranker
from retrieval_cl.mining.export import write_texts
from retrieval_cl.mining.table import NegativeTable

POSITIVES = Ragged.from_lists([[0], [1, 2]])
PLAIN = NegativeTable(
    round=0,
    queries=np.array([1, 0]),
    rows=np.array([[3, 4], [-1, -1]]),
    scores=np.array([[0.5, 0.25], [-np.inf, -np.inf]], dtype=np.float32),
    ranks=np.array([[0, 1], [-1, -1]], dtype=np.int32),
    sources=np.array([[0, 0], [-1, -1]], dtype=np.int8),
)
TAUGHT = replace(
    PLAIN,
    teacher=np.array([[7, 6], [-np.inf, -np.inf]], dtype=np.float32),
    positives=np.array([[0, -1], [1, 2]]),
    positive_teacher=np.array([[9, -np.inf], [8, 5]], dtype=np.float32),
)


def test_teacher_scores_are_saved_and_mapped(tmp_path):
    TAUGHT.save(tmp_path / "table")
    loaded = NegativeTable.load(tmp_path / "table")
    for name in ("teacher", "positives", "positive_teacher"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(TAUGHT, name))
        assert isinstance(getattr(loaded, name), np.memmap)
    assert loaded.taught(POSITIVES).tolist() == [9, 8, 5]


def test_table_that_knows_fewer_sources_and_no_teacher_still_loads(tmp_path):
    PLAIN.save(tmp_path / "table")
    path = tmp_path / "table" / "manifest.json"
    names = ["dense", "lexical", "previous", "random", "given"]
    write_json(path, json.loads(path.read_text()) | {"source_names": names})
    assert NegativeTable.load(tmp_path / "table").teacher is None


def test_scores_no_teacher_gave_are_refused():
    with pytest.raises(InputError, match="no teacher's scores"):
        PLAIN.taught(POSITIVES)
    with pytest.raises(InputError, match="query row 1, passage row 2"):
        TAUGHT.taught(Ragged.from_lists([[2], [1]]))


ROWS = {
    ("pairs", "none"): [("q1", "p0", 1), ("q1", "p3", 0), ("q1", "p4", 0), ("q0", "p1", 1), ("q0", "p2", 1)],
    ("pairs", "teacher"): [
        ("q1", "p0", 9), ("q1", "p3", 7), ("q1", "p4", 6), ("q0", "p1", 8), ("q0", "p2", 5)
    ],
    ("lists", "none"): [("q1", ["p0", "p3", "p4"], [1, 0, 0])],
    ("lists", "vectors"): [("q1", ["p0", "p3", "p4"], [1.0, 0.5, 0.25])],
    ("triplets", "none"): [("q1", "p0", "p3"), ("q1", "p0", "p4")],
    ("tuples", "teacher"): [("q1", "p0", "p3", "p4", [9, 7, 6])],
    ("flagembedding", "none"): [("q1", ["p0"], ["p3", "p4"])],
    ("flagembedding", "teacher"): [("q1", ["p0"], ["p3", "p4"], [9], [7, 6])],
}  # fmt: skip


@pytest.mark.parametrize(("shape", "scores"), list(ROWS))
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_every_shape_holds_its_rows_and_loads_as_a_data_set(shape, scores, ending, tmp_path):
    import datasets

    path = tmp_path / f"rows.{ending}"
    written = write_texts(
        path,
        TAUGHT,
        shape=shape,
        queries=["q0", "q1"],
        passages=[f"p{row}" for row in range(5)],
        positives=POSITIVES,
        positive_scores=np.array([1.0, 0.9, 0.8], dtype=np.float32),
        scores=scores,
    )
    kind = {"jsonl": "json"}.get(ending, ending)
    data = datasets.load_dataset(kind, data_files=str(path), cache_dir=str(tmp_path / "c"), split="train")
    assert [tuple(row.values()) for row in data] == ROWS[shape, scores]
    assert (written.rows, written.pairs_left_out) == (len(data), 0 if shape == "pairs" else 2)


def test_cross_encoder_gets_all_pairs_at_once_longest_first():
    calls = []

    class Stand:
        def predict(self, inputs, *, batch_size, show_progress_bar):
            calls.append(inputs)
            return np.array([len(query) * 10 + len(passage) for query, passage in inputs])

    reranker = TextReranker(Stand(), queries=["a", "bb"], passages=["x", "yyyyy", "zzz"])
    scores = reranker(np.array([0, 1, 0, 1]), np.array([0, 1, 2, 0]))
    assert scores.tolist() == [11, 25, 13, 21]
    assert calls == [[("bb", "yyyyy"), ("a", "zzz"), ("bb", "x"), ("a", "x")]]

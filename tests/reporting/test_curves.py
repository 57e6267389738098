"""Records of a run become curves."""

from __future__ import annotations

import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.reporting.curves import Arm, read_arm


def test_series_leaves_out_what_was_not_measured():
    arm = Arm(
        "a",
        [{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}, {"step": 4, "loss": float("nan")}],
    )
    steps, values = arm.series("loss")
    assert (steps.tolist(), values.tolist()) == ([1], [2.0])
    assert arm.series("recall@10")[0].shape == (0,)
    assert arm.last("recall@10") is None


def test_nested_and_prefixed_names_are_found():
    arm = Arm("a", [{"step": 1, "health": {"std_ratio": 0.9}, "dev/recall@10": 0.5}])
    assert (arm.last("std_ratio"), arm.last("recall@10")) == (0.9, 0.5)


def test_a_resumed_run_counts_its_later_records():
    arm = Arm(
        "a",
        [{"step": step, "loss": loss} for step, loss in [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.5), (3, 3.0)]],
    )
    steps, values = arm.series("loss")
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [5.0, 3.5, 3.0])


def test_rounds_start_at_their_first_step():
    arm = Arm("a", [{"step": step, "round": step // 10} for step in range(3, 30)])
    assert arm.round_starts() == {0: 3, 1: 10, 2: 20}


def test_a_metrics_file_reads_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.25}\n', encoding="utf8")
    assert read_arm(path, name="mined").series("loss")[1].tolist() == [2.5, 2.25]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"step": 1}\n{"step": \n', "line 2: broken JSON"),
        (b'{"step": 1}\n{"loss": 1}\n', "line 2: expected an object with `step`"),
        (b"[1]\n", "line 1: expected an object"),
        (b'{"step": 1}\n\xff\xfe\n', "line 2: broken JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_arm(path, name="a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_arm(tmp_path / "metrics.jsonl", name="a")

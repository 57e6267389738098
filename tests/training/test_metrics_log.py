import json

from retrieval_cl.training.metrics import MetricsLog


def test_lines_are_whole_json_objects_with_their_step(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.append(3, loss=0.5, health={"std_ratio": 0.9})
    log.append(4, note="é")
    records = [json.loads(line) for line in log.path.read_text(encoding="utf8").splitlines()]
    assert records == [{"step": 3, "loss": 0.5, "health": {"std_ratio": 0.9}}, {"step": 4, "note": "é"}]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(1, loss=float("nan"), health={"uniformity": float("-inf"), "std_ratio": 1.0})
    assert json.loads(log.path.read_text()) == {
        "step": 1,
        "loss": None,
        "health": {"uniformity": None, "std_ratio": 1.0},
    }


def test_cut_drops_later_lines_and_a_broken_last_one(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.size() == 0
    log.append(1, loss=1.0)
    size, kept = log.size(), log.path.read_text()
    log.append(2, loss=0.5)
    with log.path.open("a") as stream:
        stream.write('{"step": 3, "lo')
    log.cut(size)
    assert log.path.read_text() == kept


def test_cut_of_a_shorter_or_missing_file_does_nothing(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.cut(100)
    assert not log.path.exists()
    log.append(1, loss=1.0)
    before = log.path.read_text()
    log.cut(10_000)
    assert log.path.read_text() == before

"""How the fault benchmark judges a run: what counts as harm, what as caught, and what as a false alarm."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from retrieval_cl.training.signals import Signals

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
faults, fault_cases, fault_runs = map(importlib.import_module, ("faults", "fault_cases", "fault_runs"))
SOUND = fault_cases.Case("moco", "moco", 1)
FAULT = fault_cases.Case("moco: x", "moco", 1, healthy="moco")


def look(step, gap):
    """A look whose one sign is the twin's distance: 0 is a fault after two looks."""
    return asdict(Signals(step=step, warmup=0, lr=0.1, rows=64, dim=8, ema_gap=float(gap), queue_fill=1.0))


def outcome(score, gaps, **facts):
    looks = [look(25 * number, gap) for number, gap in enumerate(gaps, start=1)]
    return fault_runs.Outcome("x", looks, score=score, asked=100, **facts)


def judged(case, **outcomes):
    return faults.judge(case, {f"{name.replace('_', ': ')}, seed 1": one for name, one in outcomes.items()})


def test_a_fault_counts_only_where_the_score_fell_by_more_than_noise():
    sound, broken = outcome(0.8, [1, 1]), [0, 0]
    assert judged(FAULT, moco=sound, moco_x=outcome(0.6, broken))["counts"]
    assert not judged(FAULT, moco=sound, moco_x=outcome(0.75, broken))["counts"]


def test_a_look_every_fifty_steps_sees_every_second_one():
    found = outcome(0.8, [0, 0, 0, 0])
    assert faults.detect(found, stride=1) == ("EMA momentum 0", 50)
    assert faults.detect(found, stride=2) == ("EMA momentum 0", 100)
    assert faults.detect(outcome(0.8, [0, 1, 0, 1]), stride=1) is None
    assert faults.detect(outcome(0.8, [1], leak="a twin"), stride=1) == ("leak check", 0)
    assert faults.detect(outcome(0.8, [1], diverged=7), stride=2) == ("diverged", 7)


def test_summary_counts_what_was_caught_and_false_alarms():
    rows = [
        judged(SOUND, moco=outcome(0.8, [1, 1, 1, 1])),
        judged(SOUND, moco=outcome(0.8, [0, 0, 1, 1])),
        judged(FAULT, moco=outcome(0.8, [1]), moco_x=outcome(0.3, [0, 0, 0, 0])),
        judged(FAULT, moco=outcome(0.8, [1]), moco_x=outcome(0.3, [1, 1, 1, 1])),
    ]
    often, seldom = faults.summary(rows).splitlines()
    assert "1 of 2 faults that lower the score caught, the latest at step 50" in often
    assert "1 false alarms in 2 sound runs" in often and "0 false alarms in 2 sound runs" in seldom


@pytest.mark.slow
def test_a_run_that_is_done_is_not_done_again(tmp_path, capsys):
    given = ["--quick", "--threads", "1", "--only", "EMA momentum 0", "--out", str(tmp_path / "runs.jsonl")]
    faults.main([*given, "--json", str(tmp_path / "rows.json")])
    assert "moco: EMA momentum 0, seed 1: score" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["is_fault"] and row["drop"] is None and not row["counts"]
    faults.main(given)
    assert "seed 1: score" not in capsys.readouterr().out

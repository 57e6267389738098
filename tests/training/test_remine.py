"""When it is mined: fixed periods, staleness in the log, tables that are mined beside training."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run
import torch
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.callbacks import Remine, Save
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import TrainingFailed
from retrieval_cl.training.run import plan_rounds
from retrieval_cl.training.trainer import train


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def records(log, key):
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    return [line for line in lines if key in line]


def top_two(run):
    """The two best passages of each query under the current weights, positives included."""
    table = tiny_run.mine_hardest(run)
    return np.ascontiguousarray(table.rows[:, :2])


class Beside:
    """Mines at once, with the weights of the snapshot's step, and gives the table when it is due."""

    def __init__(self, *, fails_at=None):
        self.calls, self.fails_at, self.table = [], fails_at, None

    def begin(self, run, pending):
        self.calls.append(("begin", run.step, pending.round))
        self.table = dataclasses.replace(tiny_run.mine_hardest(run), round=pending.round)
        self.hits = np.ascontiguousarray(self.table.rows[:, :2])

    def resume(self, run, pending):
        raise AssertionError("nothing is resumed here")

    def check(self, run):
        if self.fails_at is not None and run.step >= self.fails_at:
            raise TrainingFailed("the miner fell over")

    def finish(self, run, pending):
        self.calls.append(("finish", run.step, pending.round))
        return self.table, self.hits

    def forget(self, oldest):
        self.calls.append(("forget", oldest))

    def stop(self):
        self.calls.append(("stop",))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rounds": 3, "remine_every": 8}, (10, 8, 8, 4)),
        ({"rounds": 2, "remine_every": 5, "first_round_epochs": 2.0}, (20, 5, 5)),
        ({"rounds": 1, "remine_every": 4, "steps": 9, "first_mined_round": 0}, (4, 4, 1)),
        ({"remine_every": 4, "steps": 9, "first_mined_round": 0}, (4, 4, 1)),
        ({"rounds": 2, "remine_every": 3, "steps": 10}, (5, 3, 2)),
        ({"rounds": 2, "remine_every": 99, "steps": 10, "min_overlap": 0.5, "probe_every": 1}, (5, 5)),
    ],
)
def test_mined_steps_are_cut_into_rounds_of_one_length(settings, expected):
    assert plan_rounds(TrainingConfig(**settings), steps_per_epoch=10) == expected


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rounds": 2, "remine_every": 10}, r"remine_every 10: no table would be replaced, 10 steps"),
        ({"background": True, "swap_after": 10}, r"swap_after 10: .* has only 10 steps"),
        ({"remine_every": 4, "background": True, "swap_after": 4}, r"swap_after 4: .* has only 4 steps"),
        (
            {"rounds": 1, "first_mined_round": 0, "background": True, "swap_after": 1},
            r"background has no effect: the only table is mined before the first step",
        ),
    ],
)
def test_period_that_does_not_fit_the_rounds_is_refused(settings, reason):
    with pytest.raises(InputError, match=reason):
        plan_rounds(TrainingConfig(**settings), steps_per_epoch=10)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rounds": 1, "remine_every": 5}, "remine_every has no effect: no round is mined for"),
        ({"num_negatives": 0, "probe_every": 5}, "probe_every has no effect: no round is mined for"),
        ({"min_overlap": 0.5, "remine_every": 5}, "min_overlap needs probe_every"),
        ({"min_overlap": 0.5, "remine_every": 5, "probe_every": 5}, "min_overlap has no effect"),
        ({"min_overlap": 0.5, "probe_every": 5}, "min_overlap needs .*remine_every"),
        ({"rounds": 3, "steps": 9, "first_mined_round": 0, "remine_every": 2}, "rounds has no effect"),
        ({"background": True}, "background needs swap_after"),
        ({"swap_after": 5}, "swap_after has no effect without background"),
        ({"background_threads": 2}, "background_threads has no effect without background"),
        ({"min_overlap": 1.5, "probe_every": 1, "remine_every": 2}, "min_overlap"),
    ],
)
def test_idle_setting_of_remining_is_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainingConfig(**settings)


def test_no_table_is_older_than_its_period(make_run, log):
    run, source = make_run(remine_every=2)
    mined = []

    def mine(run):
        mined.append(run.step)
        return tiny_run.mine_hardest(run)

    train(run, source, callbacks=[Remine(mine, log, probe=top_two)])
    assert run.steps == 9 and run.round_steps == (3, 2, 2, 2)
    assert mined == [3, 5, 7]
    assert [(line["step"], line["round"]) for line in records(log, "mining_seconds")] == [
        (3, 1),
        (5, 2),
        (7, 3),
    ]


def test_age_and_overlap_are_written_at_each_look_and_each_mining(make_run, log):
    hits = {3: [[0, 1]], 4: [[1, 0]], 6: [[0, 5]], 8: [[6, 5]]}
    run, source = make_run(probe_every=2, remine_every=3)
    probe = lambda run: np.array(hits[run.step], dtype=np.int64)  # noqa: E731
    train(run, source, callbacks=[Remine(tiny_run.mine_hardest, log, probe=probe)])
    found = [
        (line["step"], line["round"], line["staleness"]["age"], line["staleness"]["overlap"])
        for line in records(log, "staleness")
    ]
    # Step 6 is a mining: its look is the one at the new round's start.
    assert found == [(4, 1, 1, 1.0), (6, 2, 3, 0.5), (8, 2, 2, 0.5)]
    assert [line["step"] for line in records(log, "probe_seconds")] == [4, 8]
    assert [line["step"] for line in records(log, "mining_seconds")] == [3, 6]


def test_looking_changes_nothing_that_is_learned(make_run, assert_equal_runs, tmp_path):
    runs = [make_run(), make_run(probe_every=1)]
    for number, (run, source) in enumerate(runs):
        log = MetricsLog(tmp_path / f"{number}.jsonl")
        train(run, source, callbacks=[Remine(tiny_run.mine_hardest, log, probe=top_two)])
    assert_equal_runs(runs[0][0], runs[1][0])


def test_setting_that_nothing_serves_is_refused(make_run, log):
    for settings in ({"probe_every": 2}, {"probe_passages": 2}, {"background": True, "swap_after": 1}):
        run, source = make_run(**settings)
        with pytest.raises(InputError, match="has no effect here"):
            train(run, source, callbacks=[Remine(tiny_run.mine_hardest, log)])


def test_table_of_the_snapshot_is_swapped_in_on_its_step(make_run, log, tmp_path):
    run, source = make_run(remine_every=3, background=True, swap_after=2)
    beside = Beside()
    remine = Remine(refuse, log, probe=top_two, aside=beside)
    train(run, source, callbacks=[remine, Save(tmp_path / "checkpoints", [remine])])
    mining = [call for call in beside.calls if call[0] in ("begin", "finish")]
    assert mining == [("begin", 1, 1), ("finish", 3, 1), ("begin", 4, 2), ("finish", 6, 2)]
    # At step 9 the checkpoints of steps 6 and 9 are left.
    assert [call for call in beside.calls if call[0] == "forget"] == [("forget", s) for s in (3, 3, 6)]
    assert beside.calls[-1] == ("stop",)
    assert [line["step"] for line in records(log, "waited_seconds")] == [3, 6]
    # The weights of step 4 against those of step 1.
    assert [line["staleness"]["age"] for line in records(log, "staleness")] == [3]


def test_old_weights_mine_another_table_than_those_of_the_swap(make_run, tmp_path):
    runs = []
    for number, swap_after in enumerate((None, 1, 2)):
        settings = {} if swap_after is None else {"background": True, "swap_after": swap_after}
        run, source = make_run(lr=0.1, **settings)
        aside = None if swap_after is None else Beside()
        log = MetricsLog(tmp_path / f"{number}.jsonl")
        train(run, source, callbacks=[Remine(tiny_run.mine_hardest, log, aside=aside)])
        runs.append(run.method.encoder.layer.weight)
    assert not any(torch.equal(runs[i], runs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_first_round_that_is_mined_before_any_step_is_mined_in_the_foreground(make_run, log):
    run, source = make_run(first_mined_round=0, background=True, swap_after=2)
    beside, mined = Beside(), []

    def mine(run):
        mined.append(run.step)
        return tiny_run.mine_hardest(run)

    train(run, source, callbacks=[Remine(mine, log, probe=top_two, aside=beside)])
    assert mined == [0]
    assert [call[1:] for call in beside.calls if call[0] == "begin"] == [(1, 1), (4, 2)]


def test_miner_that_fails_stops_training_and_is_ended(make_run, log):
    run, source = make_run(background=True, swap_after=2)
    beside = Beside(fails_at=2)
    with pytest.raises(TrainingFailed, match="the miner fell over"):
        train(run, source, callbacks=[Remine(refuse, log, aside=beside)])
    assert run.step == 2 and beside.calls[-1] == ("stop",)


def test_cut_round_keeps_the_steps_and_starts_the_period_anew(make_run):
    run, _ = make_run(remine_every=4, steps=20, rounds=2)
    assert run.round_steps == run.planned == (10, 4, 4, 2)
    run.step = 12
    run.cut_round(12)
    assert run.round_steps == (10, 2, 4, 4) and (run.round, run.cursor, run.last_round) == (2, 0, 1)
    run.step = 13
    run.cut_round(15)
    assert run.round_steps == (10, 2, 3, 4, 1) and run.round_end == 15
    assert run.planned == (10, 4, 4, 2) and run.steps == 20


def refuse(run):
    raise AssertionError("no table is mined in the foreground")

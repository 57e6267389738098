"""A table that is too stale is mined anew before its time, and a resumed run does so at the same steps."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run
from tiny_run import Kill, Killed

from retrieval_cl.training.callbacks import Remine, Save
from retrieval_cl.training.checkpoint import load_checkpoint, newest_checkpoint
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.trainer import train

DRIFT = {"rounds": 2, "steps": 16, "remine_every": 6, "probe_every": 2, "min_overlap": 0.5, "save_every": 1}


def jump_at_twelve(run):
    """What the probe finds changes between steps 10 and 12, and not otherwise."""
    return np.full((1, 2), int(run.step >= 12), dtype=np.int64)


class Beside:
    """Mines when asked for the table, with the snapshot that it keeps on disk."""

    def __init__(self, folder):
        self.folder = folder

    def begin(self, run, pending):
        table = dataclasses.replace(tiny_run.mine_hardest(run), round=pending.round)
        table.save(self.folder / str(pending.taken_at))
        np.save(self.folder / f"{pending.taken_at}.npy", jump_at_twelve(run))

    def resume(self, run, pending):
        assert (self.folder / str(pending.taken_at)).is_dir()

    def check(self, run):
        pass

    def finish(self, run, pending):
        hits = np.load(self.folder / f"{pending.taken_at}.npy", allow_pickle=False)
        return tiny_run.NegativeTable.load(self.folder / str(pending.taken_at)), hits

    def forget(self, oldest):
        pass

    def stop(self):
        pass


def build(folder, *, background):
    settings = DRIFT | ({"background": True, "swap_after": 1} if background else {})
    log = MetricsLog(folder / "metrics.jsonl")
    aside = Beside(folder) if background else None
    others = [Monitor(log), Remine(tiny_run.mine_hardest, log, probe=jump_at_twelve, aside=aside)]
    return [*tiny_run.build_run(**settings), [*others, Save(folder / "checkpoints", others)]]


def lines(folder, *keys):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[record[key] for key in keys] for record in records if all(key in record for key in keys)]


@pytest.fixture(scope="module", params=[False, True], ids=["foreground", "background"])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run, source, callbacks = build(folder, background=request.param)
    train(run, source, callbacks=callbacks)
    return run, folder, request.param


def test_drift_ends_the_round_and_the_period_starts_anew(whole):
    run, folder, background = whole
    # Planned: tables at steps 8 and 14. Seen at step 12, the drift brings the second one forward.
    assert run.planned == (8, 6, 2)
    assert run.round_steps == ((8, 5, 3) if background else (8, 4, 4))
    assert lines(folder, "step", "remines") == [[10, False], [12, True], [14, False]]


@pytest.mark.parametrize("step", [8, 12, 13])
def test_killed_and_resumed_run_mines_at_the_same_steps(whole, assert_equal_runs, tmp_path, step):
    expected, folder, background = whole
    run, source, callbacks = build(tmp_path, background=background)
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(step)])
    run, source, callbacks = build(tmp_path, background=background)
    load_checkpoint(newest_checkpoint(tmp_path / "checkpoints"), run, callbacks=callbacks)
    assert run.step == step
    train(run, source, callbacks=callbacks)
    assert run.round_steps == expected.round_steps
    assert_equal_runs(run, expected)
    assert lines(tmp_path, "step", "round", "staleness") == lines(folder, "step", "round", "staleness")
    assert lines(tmp_path, "step", "loss") == lines(folder, "step", "loss")

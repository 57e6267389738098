"""Mining beside training: the same bits whoever mines, however often the run is killed."""

import json
import shutil

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs import background, to_the_end
from retrieval_cl.runs.background import Given, MiningJob, mine_snapshot
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.rounds import RoundTask
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.background import BackgroundFailed, InlineWorker
from retrieval_cl.training.steps import plain_step

# Rounds of 6, 3 and 3 steps: snapshots after steps 4 and 7, swaps after 6 and 9.
BESIDE = (
    "training.steps=12",
    "training.remine_every=3",
    "training.background=true",
    "training.swap_after=2",
    "training.eval_at_start=false",
    "training.precision=fp32",
    "evaluation.keep=last",
)


class Killed(BaseException):
    pass


@pytest.fixture
def inline(monkeypatch):
    """The same work in this process."""
    make = lambda given, run: InlineWorker(mine_snapshot, given)  # noqa: E731
    monkeypatch.setattr(background, "_spawn", make)


@pytest.fixture
def kill_after(monkeypatch):
    """Kills the next run while it takes the step after this one; None lets it live."""

    def set_step(step):
        taken = [0]

        def take_step(*arguments):
            if step is not None and taken[0] == step:
                raise Killed
            taken[0] += 1
            return plain_step(*arguments)

        monkeypatch.setattr(to_the_end, "choose_step", lambda config, log: (take_step, ()))

    return set_step


def lines_of(path, *, without=("seconds", "pairs_per_second", "snapshot_seconds", "waited_seconds")):
    clocks = {*without, "leak_check_seconds"}
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


def test_snapshot_mines_what_the_weights_themselves_do(text, encoder, make_config, tmp_path):
    config = make_config()
    task = RoundTask(text, config.mining, {}, seed=3)
    probe = Probe.of(text, mining=config.mining, training=config.training)
    encoder.save(tmp_path / "encoder")
    facts = mine_snapshot(Given(task, probe, "fp32"), MiningJob(tmp_path, 5, "cpu"))
    vectors = Vectors(text, encoder, precision="fp32")
    expected, expected_facts = task.mine(vectors, round=5, device="cpu")
    table = NegativeTable.load(tmp_path / "mined" / "table")
    assert table.round == facts.round == 5 and facts.counts == expected_facts.counts
    for name in ("queries", "rows", "scores", "ranks", "sources"):
        assert np.array_equal(getattr(table, name), getattr(expected, name)), name
    hits = np.load(tmp_path / "mined" / "probe_hits.npy", allow_pickle=False)
    assert np.array_equal(hits, probe.search(vectors, device="cpu"))


def test_spawned_process_and_this_one_train_the_same_bits(train_tiny, monkeypatch, tmp_path):
    spawned = train_tiny("spawned", *BESIDE)
    make = lambda given, run: InlineWorker(mine_snapshot, given)  # noqa: E731
    monkeypatch.setattr(background, "_spawn", make)
    inline = train_tiny("inline", *BESIDE)
    assert spawned.encoder.fingerprint() == inline.encoder.fingerprint()
    assert lines_of(spawned.metrics) == lines_of(inline.metrics)
    assert [one.round for one in spawned.rounds] == [1, 2] and spawned.scores is not None
    waits = [
        json.loads(line) for line in spawned.metrics.read_text().splitlines() if "waited_seconds" in line
    ]
    assert [line["step"] for line in waits] == [6, 9]


def test_killed_and_resumed_run_ends_in_the_same_bits(train_tiny, inline, kill_after, tmp_path):
    kill_after(None)
    whole = train_tiny("whole", *BESIDE, "training.save_every=1")
    # Resumed from checkpoints with a table that is being mined, and with one that is due at once.
    for step, save_every in ((4, "4"), (8, "null")):
        kill_after(step)
        with pytest.raises(Killed):
            train_tiny(f"{step}", *BESIDE, f"training.save_every={save_every}")
        kill_after(None)
        killed = train_tiny(f"{step}", *BESIDE, f"training.save_every={save_every}", resume=True)
        assert killed.encoder.fingerprint() == whole.encoder.fingerprint()
        assert lines_of(killed.metrics) == lines_of(whole.metrics)
    # A snapshot stays as long as a checkpoint needs it: those of steps 11 and 12 are left, or of 9 and 12.
    kept = {
        name: [path.name for path in (tmp_path / name / "checkpoints/snapshots").iterdir()]
        for name in ("whole", "8")
    }
    assert kept == {"whole": [], "8": ["step-00000007-to-00000009"]}


def test_resume_without_its_snapshot_is_refused(train_tiny, inline, kill_after, tmp_path):
    settings = (*BESIDE, "training.save_every=1")
    kill_after(5)
    with pytest.raises(Killed):
        train_tiny("killed", *settings)
    shutil.rmtree(tmp_path / "killed/checkpoints/snapshots")
    kill_after(None)
    with pytest.raises(InputError, match=r"step-00000004-to-00000006: no such folder; .* of step 5 needs"):
        train_tiny("killed", *settings, resume=True)


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (InputError("mining.factory 'x': unknown"), InputError, r"^mining.factory 'x': unknown$"),
        (
            MemoryError("no room"),
            BackgroundFailed,
            r"^mining in the background failed: MemoryError: no room$",
        ),
    ],
)
def test_failed_mining_stops_training_with_its_line(train_tiny, monkeypatch, tmp_path, error, kind, line):
    def fail(given, job):
        raise error

    monkeypatch.setattr(background, "_spawn", lambda given, run: InlineWorker(fail, given))
    with pytest.raises(kind, match=line):
        train_tiny("a", *BESIDE, "training.log_every=1")
    # Taken after step 4, the snapshot fails at the very next look: nobody trains on until the swap.
    assert lines_of(tmp_path / "a/metrics.jsonl")[-1]["step"] == 5

import json

import pytest
import torch
from tiny_run import Kill, Killed

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.checkpoint import list_checkpoints, load_checkpoint, newest_checkpoint
from retrieval_cl.training.trainer import train


def lines(path):
    clocks = {"seconds", "pairs_per_second", "mining_seconds"}
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


def train_killed(make_run, make_callbacks, *, step, **settings):
    """Trains, is killed at a step, and goes on in new objects from the newest checkpoint."""
    callbacks = make_callbacks("killed")
    run, source = make_run(**settings)
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(step)])
    torch.manual_seed(999)
    return resume(make_run, make_callbacks, **settings)


def resume(make_run, make_callbacks, **settings):
    callbacks = make_callbacks("killed")
    run, source = make_run(**settings)
    load_checkpoint(newest_checkpoint(callbacks[-1].folder), run, callbacks=callbacks)
    started_at = run.step
    train(run, source, callbacks=callbacks)
    return run, started_at


@pytest.mark.parametrize(("step", "started_at"), [(2, 2), (3, 3), (5, 4), (7, 6), (9, 9)])
def test_killed_and_resumed_run_ends_in_the_same_bits(
    whole, make_run, make_callbacks, assert_equal_runs, tmp_path, step, started_at
):
    expected, folder = whole
    run, found = train_killed(make_run, make_callbacks, step=step, save_every=2)
    assert found == started_at
    assert_equal_runs(run, expected)
    assert run.dev == expected.dev
    assert lines(tmp_path / "killed/metrics.jsonl") == lines(folder / "metrics.jsonl")


OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "decays": "all"},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    "lars": {"optimizer": "lars", "lr": 1.0, "lars_eta": 0.02, "lars_clip": True},
    "adamw": {"betas": (0.8, 0.9)},
}


@pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_resumes_to_the_same_bits(make_run, make_callbacks, assert_equal_runs, settings):
    settings = settings | {"save_every": 2, "eval_at_start": False}
    whole, source = make_run(**settings)
    train(whole, source, callbacks=make_callbacks("whole"))
    run, started_at = train_killed(make_run, make_callbacks, step=5, **settings)
    assert started_at == 4
    assert_equal_runs(run, whole)


def test_resume_within_a_round_mines_nothing_again(make_run, make_callbacks, mine_hardest):
    run, source = make_run(save_every=2)
    callbacks = make_callbacks("killed")
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(5)])

    def mine(run):
        assert run.round == 2, "the table of round 1 stands in the checkpoint"
        return mine_hardest(run)

    callbacks = make_callbacks("killed", mine=mine)
    run, source = make_run(save_every=2)
    load_checkpoint(newest_checkpoint(callbacks[-1].folder), run, callbacks=callbacks)
    assert run.negatives.round == 1
    train(run, source, callbacks=callbacks)
    assert run.negatives.round == 2


def test_best_is_remembered_over_a_resume(make_run, make_callbacks):
    def evaluate(run):
        return {"recall@10": 1.0 if run.step == 2 else 0.5}

    callbacks = make_callbacks("killed", evaluate=evaluate)
    run, source = make_run(save_every=2, eval_every=2)
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(5)])
    callbacks = make_callbacks("killed", evaluate=evaluate)
    run, source = make_run(save_every=2, eval_every=2)
    load_checkpoint(newest_checkpoint(callbacks[-1].folder), run, callbacks=callbacks)
    train(run, source, callbacks=callbacks)
    assert (callbacks[2].best, callbacks[2].best_step) == (1.0, 2)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lr": 0.02}, r"training.lr 0.01, now it is 0.02"),
        ({"seed": 5}, r"training.seed 0, now it is 5"),
        ({"rounds": 2}, r"training.(rounds|round_steps)"),
    ],
)
def test_resume_with_other_settings_is_refused(make_run, make_callbacks, settings, reason):
    with pytest.raises(InputError, match=reason):
        train_then_load(make_run, make_callbacks, **settings)


def test_settings_that_only_look_may_change(make_run, make_callbacks):
    train_then_load(make_run, make_callbacks, log_every=7, save_every=3, keep_checkpoints=9)


def test_other_model_is_refused(make_run, make_callbacks, make_method):
    method = make_method()
    method.encoder.layer = torch.nn.Linear(6, 7)
    with pytest.raises(InputError, match=r"another model.*layer"):
        train_then_load(make_run, make_callbacks, method=method)


def train_then_load(make_run, make_callbacks, **settings):
    callbacks = make_callbacks("killed")
    run, source = make_run()
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(4)])
    run, _ = make_run(**settings)
    load_checkpoint(list_checkpoints(callbacks[-1].folder)[-1][1], run, callbacks=callbacks)

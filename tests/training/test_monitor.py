import io
import json
import math

import pytest
import torch
from test_interrupts import Press
from test_resume import lines

from retrieval_cl.training import diagnosis, trainer
from retrieval_cl.training.checkpoint import load_checkpoint
from retrieval_cl.training.interrupts import Interrupted
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Collapse, Diverged, Monitor, TrainingFailed
from retrieval_cl.training.progress import Progress, make_display
from retrieval_cl.training.steps import limit_gradients, plain_step
from retrieval_cl.training.trainer import train


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def records(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def scattered(num_rows=16, dim=6, seed=0):
    rows = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed))
    return {"query": rows, "positive": rows + 0.01}


def collapsed(num_rows=16, dim=6):
    rows = torch.ones(num_rows, dim) + 1e-4 * torch.randn(num_rows, dim)
    return {"query": rows, "positive": rows}


def on_one_line(num_rows=16, dim=6):
    rows = torch.randn(num_rows, 1) * torch.ones(1, dim)
    return {"query": rows, "positive": rows}


def look(run, watcher, embeddings, *, times=1, loss=1.0):
    for _ in range(times):
        run.step += 1
        watcher.on_step(run, torch.tensor(loss), embeddings)


def test_each_line_holds_what_a_reader_asks_for(make_run, log):
    run, source = make_run(log_every=2, health_every=4)
    train(run, source, callbacks=[Monitor(log)])
    lines = records(log)
    # Every second step, each round's end (3, 6, 9), and each look for collapse.
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 8, 9]
    assert [line["step"] for line in lines if "health" in line] == [4, 8]
    assert [line["round"] for line in lines] == [0, 0, 1, 1, 2, 2]
    for line in lines:
        wanted = {"step", "round", "loss", "lr", "scale", "grad_norm", "pairs_per_second", "seconds"}
        assert set(line) - {"health", "signals"} == wanted | {"comparison"}
        measured = {"positive_score", "negative_score", "ignored", "entropy", "chance"}
        assert set(line["comparison"]) == measured
        assert 0 <= line["comparison"]["ignored"] < 1
        assert line["scale"] == pytest.approx(10.0, rel=0.2)
        assert line["pairs_per_second"] > 0
    health = next(line["health"] for line in lines if "health" in line)
    assert set(health) == {"std_ratio", "effective_rank", "alignment", "uniformity"}


def test_line_holds_the_mean_loss_since_the_line_before(make_run, log):
    run, _ = make_run(log_every=3, steps=9, rounds=1)
    watcher = Monitor(log)
    for loss in (1.0, 2.0, 6.0, 4.0, 4.0, 1.0):
        look(run, watcher, scattered(), loss=loss)
    assert [line["loss"] for line in records(log)] == [3.0, 3.0]


def test_fresh_run_starts_an_empty_file(make_run, log):
    log.append(77, loss=1.0)
    run, source = make_run()
    train(run, source, callbacks=[Monitor(log)])
    assert records(log)[0]["step"] == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_with_advice(make_run, log, loss):
    run, _ = make_run()
    with pytest.raises(Diverged, match=r"step 1 diverged: loss (nan|inf).*lower training.lr \(now 0.01\)"):
        look(run, Monitor(log), scattered(), loss=loss)


def test_gradient_that_is_no_number_stops(make_run, log):
    run, _ = make_run()
    run.grad_norm = torch.tensor(math.inf)
    with pytest.raises(Diverged, match="gradient norm inf"):
        look(run, Monitor(log), scattered())


@pytest.mark.parametrize("watch", ["log_every", "eval_every", "save_every", "probe_every"])
def test_broken_step_is_named_at_the_next_look_whoever_looks(make_run, log, watch):
    run, _ = make_run(**{"steps": 100, "rounds": 2, "log_every": 90, "health_every": 90, watch: 5})
    watcher = Monitor(log)
    look(run, watcher, scattered(), times=6)
    look(run, watcher, scattered(), loss=math.nan)
    look(run, watcher, scattered(), times=2)
    with pytest.raises(Diverged, match="step 7 diverged: loss nan"):
        look(run, watcher, scattered())


def test_broken_step_is_named_before_the_weights_of_a_round_are_used(make_run, log):
    settings = {"steps": 20, "rounds": 2, "background": True, "swap_after": 3}
    run, _ = make_run(**settings, log_every=90, health_every=90)
    for last, steps in ((7, 7), (10, 3)):
        watcher = Monitor(log)
        look(run, watcher, scattered(), times=steps - 2, loss=math.nan)
        look(run, watcher, scattered())
        with pytest.raises(Diverged):
            look(run, watcher, scattered())
        assert run.step == last


@pytest.mark.parametrize("step", [3, 5])
def test_no_checkpoint_holds_a_broken_step(make_run, make_callbacks, tmp_path, step):
    """Neither that of Ctrl-C between two looks, nor the one that is due."""

    def breaks(method, batch, cast):
        loss, embeddings = plain_step(method, batch, cast)
        return loss * math.nan if run.step == 2 else loss, embeddings

    run, source = make_run(steps=9, rounds=1, log_every=90, health_every=90, save_every=5)
    with pytest.raises(Diverged, match="step 3 diverged"):
        train(
            run, source, callbacks=[Press(step if step < 5 else 0), *make_callbacks("run")], take_step=breaks
        )
    assert run.step == step and not (tmp_path / "run/checkpoints").exists()


def test_run_stopped_between_two_looks_goes_on_with_the_same_lines(
    make_run, make_callbacks, assert_equal_runs, tmp_path
):
    settings = {"steps": 9, "rounds": 1, "log_every": 4, "eval_at_start": False}
    whole, source = make_run(**settings)
    train(whole, source, callbacks=make_callbacks("whole"))
    stopped, source = make_run(**settings)
    with pytest.raises(Interrupted) as stop:
        train(stopped, source, callbacks=[Press(6), *make_callbacks("stopped")])
    run, source = make_run(**settings)
    callbacks = make_callbacks("stopped")
    load_checkpoint(stop.value.checkpoint, run, callbacks=callbacks)
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole)
    assert lines(tmp_path / "stopped/metrics.jsonl") == lines(tmp_path / "whole/metrics.jsonl")


class Locked(torch.Tensor):
    """A number that may not be looked at, as on a device that is still at work."""

    open = False

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        looks = ("tolist", "item", "__float__", "__bool__", "numpy", "__int__", "cpu")
        assert cls.open or function.__name__ not in looks, function.__name__
        return super().__torch_function__(function, types, arguments, keywords or {})


def test_loop_looks_at_no_value_of_a_step_that_is_not_watched(make_run, log, monkeypatch):
    run, source = make_run(steps=6, rounds=1, log_every=3, health_every=90)
    waits = []
    monkeypatch.setattr(trainer, "wait_for", lambda device: waits.append(run.step + 1))

    def step(method, batch, cast):
        loss, embeddings = plain_step(method, batch, cast)
        Locked.open = (run.step + 1) % 3 == 0
        return loss.as_subclass(Locked), embeddings

    monkeypatch.setattr(
        trainer, "limit_gradients", lambda *arguments: limit_gradients(*arguments).as_subclass(Locked)
    )
    display = Progress(make_display(io.StringIO()), metric="recall@10")
    train(run, source, callbacks=[Monitor(log), display], take_step=step)
    assert waits == [3, 6]
    assert [line["step"] for line in records(log)] == [3, 6]
    with pytest.raises(AssertionError, match="__float__"):
        Locked.open = False
        float(run.grad_norm)


@pytest.mark.parametrize("embeddings", [collapsed(), on_one_line()], ids=["one point", "one line"])
def test_collapse_is_named_after_three_looks_in_a_row(make_run, log, embeddings):
    run, _ = make_run(health_every=1, steps=100)
    watcher = Monitor(log)
    look(run, watcher, embeddings, times=2)
    with pytest.raises(
        Collapse, match=r"collapse at step 3: .*std ratio .*effective rank .*training.lr"
    ) as stop:
        look(run, watcher, embeddings)
    assert "\n" not in str(stop.value)
    assert isinstance(stop.value, TrainingFailed)
    assert "health" in records(log)[-1], "the last line on disk shows why"


def test_one_sound_look_in_between_is_no_collapse(make_run, log):
    run, _ = make_run(health_every=1, steps=100)
    watcher = Monitor(log)
    for _ in range(3):
        look(run, watcher, collapsed(), times=2)
        look(run, watcher, scattered())


def test_looks_are_counted_over_a_resume(make_run, log):
    run, _ = make_run(health_every=1, steps=100)
    watcher = Monitor(log)
    look(run, watcher, collapsed(), times=2)
    resumed = Monitor(log)
    resumed.load_state(json.loads(json.dumps(watcher.state())), run)
    with pytest.raises(Collapse):
        look(run, resumed, collapsed())


def test_a_few_rows_say_nothing_about_rank(make_run, log):
    run, _ = make_run(health_every=1, steps=100)
    few = {kind: rows[: diagnosis.MIN_ROWS - 1] for kind, rows in on_one_line().items()}
    look(run, Monitor(log), few, times=6)


def test_collapsing_training_is_stopped(make_run, make_method, log):
    method = make_method(dropout=0.0)
    with torch.no_grad():
        method.encoder.layer.weight.zero_()
        method.encoder.layer.bias.fill_(1.0)
    for parameter in method.encoder.parameters():
        parameter.requires_grad_(False)
    run, source = make_run(method=method, batch_size=12, health_every=1, steps=9)
    with pytest.raises(Collapse):
        train(run, source, callbacks=[Monitor(log)])
    assert run.step == 3

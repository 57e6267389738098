import os
import signal

import pytest

from retrieval_cl.training.checkpoint import load_checkpoint
from retrieval_cl.training.interrupts import Interrupted
from retrieval_cl.training.run import Callback
from retrieval_cl.training.steps import plain_step
from retrieval_cl.training.trainer import train


class Press(Callback):
    """Sends signals while a step is held."""

    def __init__(self, step, *, times=1, number=signal.SIGINT):
        self.step, self.times, self.number = step, times, number

    def on_step(self, run, loss, embeddings):
        for _ in range(self.times if run.step == self.step else 0):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (3, signal.SIGINT), (5, signal.SIGINT)])
def test_ctrl_c_keeps_a_checkpoint_that_resumes_to_the_same_bits(
    whole, make_run, make_callbacks, assert_equal_runs, tmp_path, step, number
):
    callbacks = make_callbacks("run")
    run, source = make_run()
    with pytest.raises(Interrupted) as stopped:
        train(run, source, callbacks=[Press(step, number=number), *callbacks])
    path = tmp_path / f"run/checkpoints/step-{step:08d}"
    assert stopped.value.checkpoint == path
    assert str(stopped.value) == f"stopped after step {step} of 9; checkpoint kept in {path}"
    run, source = make_run()
    load_checkpoint(path, run, callbacks=callbacks)
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole[0])


def test_ctrl_c_while_mining_stops_at_once(whole, make_run, make_callbacks, assert_equal_runs):
    def mine(run):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("mining went on")

    callbacks = make_callbacks("run", mine=mine)
    run, source = make_run()
    with pytest.raises(Interrupted) as stopped:
        train(run, source, callbacks=callbacks)
    callbacks = make_callbacks("run")
    run, source = make_run()
    load_checkpoint(stopped.value.checkpoint, run, callbacks=callbacks)
    assert run.step == 3
    train(run, source, callbacks=callbacks)
    assert_equal_runs(run, whole[0])


def test_ctrl_c_within_a_step_waits_for_its_end(make_run):
    run, source = make_run()
    finished = []

    def step(method, batch, cast):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        result = plain_step(method, batch, cast)
        finished.append(run.step)
        return result

    with pytest.raises(
        Interrupted, match="stopped after step 3 of 9; no checkpoint was asked for"
    ) as stopped:
        train(run, source, take_step=step)
    assert finished == [0, 1, 2]
    assert stopped.value.checkpoint is None


def test_second_ctrl_c_stops_at_once_and_saves_nothing_half(make_run, make_callbacks, tmp_path):
    run, source = make_run()
    with pytest.raises(KeyboardInterrupt):
        train(run, source, callbacks=[Press(2, times=2), *make_callbacks("run")])
    assert not (tmp_path / "run/checkpoints").exists()


def test_handlers_are_put_back(make_run):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run, source = make_run()
    with pytest.raises(Interrupted):
        train(run, source, callbacks=[Press(1)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

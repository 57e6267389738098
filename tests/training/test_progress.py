import io

import pytest
from tiny_run import Kill, Killed

from retrieval_cl.training import progress
from retrieval_cl.training.callbacks import Save
from retrieval_cl.training.checkpoint import load_checkpoint, newest_checkpoint
from retrieval_cl.training.progress import Bar, Lines, Progress, Status, make_display
from retrieval_cl.training.trainer import train


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_display_fits_the_stream():
    assert isinstance(make_display(Terminal()), Bar)
    assert isinstance(make_display(io.StringIO()), Lines)


def test_plain_lines_tell_place_loss_speed_and_time(make_run, make_callbacks):
    stream = io.StringIO()
    run, source = make_run()
    train(run, source, callbacks=[Progress(make_display(stream), metric="recall@10"), *make_callbacks("run")])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "round 1/3  step 0/9"
    assert lines[-1].startswith("round 3/3  step 9/9  loss ")
    assert "dev recall@10" in lines[-1] and "pairs/s" in lines[-1] and "0:00 left" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_plain_lines_are_few(monkeypatch):
    monkeypatch.setattr(progress, "monotonic", lambda: 0.0)
    stream = io.StringIO()
    lines = Lines(stream)
    for step in range(1001):
        lines.show(Status(step=step, steps=1000, round=0, rounds=1, loss=1.0))
    assert len(stream.getvalue().splitlines()) == 21


def test_slow_steps_are_shown_by_the_clock(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    lines = Lines(stream)
    for step in range(11):
        lines.show(Status(step=step, steps=100_000, round=0, rounds=1))
        clock[0] += 5.0
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == [
        f"{step}/100000" for step in (0, 3, 6, 9)
    ]


def test_bar_shows_the_end_and_gives_the_terminal_back(make_run, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    run, source = make_run()
    train(run, source, callbacks=[Progress(make_display(stream), metric="recall@10")])
    text = stream.getvalue()
    assert "9/9" in text and "loss" in text and "round 3/3" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, (
        "the cursor is hidden once and shown again"
    )


def test_time_left_counts_pauses_and_is_readable():
    def say(seconds):
        return Status(step=1, steps=2, round=0, rounds=1, seconds_left=seconds).numbers()

    assert [say(5.0), say(65.4), say(3725.0)] == ["0:05 left", "1:05 left", "1:02:05 left"]


def test_average_of_the_loss_goes_on_over_a_resume(make_run, make_callbacks):
    def losses(stream):
        return {
            line.split()[3]: line.split("loss ")[1].split()[0]
            for line in stream.getvalue().splitlines()
            if "loss " in line
        }

    def watch(stream, name):
        shown = Progress(Lines(stream), metric="recall@10")
        callbacks = make_callbacks(name)
        return [shown, *callbacks[:-1], Save(callbacks[-1].folder, [shown, *callbacks[:-1]])]

    whole, first, second = io.StringIO(), io.StringIO(), io.StringIO()
    run, source = make_run(save_every=1)
    train(run, source, callbacks=watch(whole, "whole"))
    run, source = make_run(save_every=1)
    callbacks = watch(first, "cut")
    with pytest.raises(Killed):
        train(run, source, callbacks=[*callbacks, Kill(5)])
    run, source = make_run(save_every=1)
    callbacks = watch(second, "cut")
    load_checkpoint(newest_checkpoint(callbacks[-1].folder), run, callbacks=callbacks)
    train(run, source, callbacks=callbacks)
    rest = losses(second)
    assert len(rest) >= 3 and rest.items() <= losses(whole).items()
    assert len({*losses(whole).values()}) > 1

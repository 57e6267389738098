"""A process of its own: results, errors and death all reach the one who asked, in one line."""

import os
import time

import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.background import (
    BackgroundFailed,
    InlineWorker,
    SpawnedWorker,
    answer,
    spare_device,
)


def work(given, job):
    """Runs in the child too, which imports this module."""
    match job:
        case "where":
            return os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], len(given)
        case "input":
            raise InputError("mining.depth 0; valid is 1 or more")
        case "broken":
            raise ZeroDivisionError("1 / 0\nand more lines")
        case "die":
            os._exit(3)
    return given, job


def test_child_computes_fails_in_one_line_and_goes_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = bytes(2_000_000)
    worker = SpawnedWorker(work, given, threads=2)
    try:
        started = time.monotonic()
        worker.begin("where")
        assert time.monotonic() - started < 2, "nobody waits for the child to load its libraries"
        pid, threads, variable, length = worker.finish()
        assert pid != os.getpid() and (threads, variable, length) == (2, "2", len(given))
        assert os.environ["OMP_NUM_THREADS"] == "1"
        worker.begin("input")
        with pytest.raises(InputError, match=r"^mining.depth 0; valid is 1 or more$"):
            worker.finish()
        worker.begin("broken")
        with pytest.raises(
            BackgroundFailed, match=r"^mining in the background failed: ZeroDivisionError: 1 / 0$"
        ):
            worker.finish()
        worker.begin("die")
        with pytest.raises(BackgroundFailed, match="ended: exit code 3"):
            worker.finish()
        assert not worker.is_done()
    finally:
        worker.stop()
        worker.stop()


def test_work_in_this_process_answers_alike():
    worker = InlineWorker(work, 5)
    worker.begin("x")
    assert worker.is_done() and worker.finish() == (5, "x")
    worker.begin("broken")
    with pytest.raises(BackgroundFailed, match=r"ZeroDivisionError: 1 / 0$"):
        worker.finish()
    worker.begin("input")
    with pytest.raises(InputError, match="depth 0"):
        worker.finish()
    assert answer(work, 5, "x") == ("done", (5, "x"))


def test_spare_device_is_one_that_no_rank_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = torch.device("cuda", 0)
    assert spare_device(gpu, ranks_here=1) == torch.device("cuda", 1)
    assert spare_device(gpu, ranks_here=2) == gpu
    assert spare_device(torch.device("cpu"), ranks_here=1) == torch.device("cpu")

"""A process of its own that works while training goes on.

It is spawned: a forked child of a process that has used the threads of torch or FAISS hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, final

import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.training.monitor import TrainingFailed

Work = Callable[[Any, Any], Any]
"""(what is given once, the job) -> result: a function of a module, so that a process can import it."""

Answer = tuple[str, Any]
"""What became of a job (`done`, `input` for an InputError, `failed`), and its result or its one line."""

# Read by the numeric libraries when they are loaded: too late to set inside the child.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@final
class BackgroundFailed(TrainingFailed):
    """The work beside training failed; the message is its one line."""


class Worker(ABC):
    """Does one job at a time, beside whoever asked for it."""

    @abstractmethod
    def begin(self, job: Any) -> None:
        """Starts a job; the one before must be finished."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether `finish` would return, or raise, at once."""

    @abstractmethod
    def finish(self) -> Any:
        """The result. Raises InputError as the work did, BackgroundFailed for any other failure."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it, whatever it does."""


@final
class InlineWorker(Worker):
    """Does a job when its result is asked for, in this process."""

    def __init__(self, work: Work, given: Any) -> None:
        self._work, self._given = work, given
        self._job: Any = None

    def begin(self, job: Any) -> None:
        """See `Worker`."""
        self._job = job

    def is_done(self) -> bool:
        """See `Worker`."""
        return True

    def finish(self) -> Any:
        """See `Worker`."""
        return _open(answer(self._work, self._given, self._job))

    def stop(self) -> None:
        """Nothing runs."""


@final
class SpawnedWorker(Worker):
    """One child for the whole run, started with its first job; it gets what is given once."""

    def __init__(self, work: Work, given: Any, *, threads: int) -> None:
        """`threads`: of the child's numeric libraries."""
        self._work, self._given, self._threads = work, given, threads
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._thread: Thread | None = None
        self._answer: Answer = ("failed", "nothing was begun")

    def begin(self, job: Any) -> None:
        """See `Worker`."""
        assert self._thread is None, "one job at a time"
        messages = [job]
        if self._process is None:
            self._process, self._pipe = _start(self._threads)
            messages = [(self._work, self._given), job]
        # What is given may be large: a thread sends it while the child still loads its libraries. Nobody
        # waits for the thread where the program ends early.
        self._thread = Thread(target=self._ask, args=(messages,), daemon=True)
        self._thread.start()

    def is_done(self) -> bool:
        """See `Worker`."""
        return self._thread is not None and not self._thread.is_alive()

    def finish(self) -> Any:
        """See `Worker`."""
        assert self._thread is not None, "nothing was begun"
        self._thread.join()
        self._thread = None
        return _open(self._answer)

    def stop(self) -> None:
        """See `Worker`."""
        if self._process is None or self._pipe is None:
            return
        self._process.kill()
        self._process.join()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()
        self._process = self._pipe = self._thread = None

    def _ask(self, messages: list[Any]) -> None:
        assert self._pipe is not None and self._process is not None
        process = self._process
        try:
            for message in messages:
                self._pipe.send(message)
            self._answer = self._pipe.recv()
        except (EOFError, OSError):
            process.join(timeout=5)
            self._answer = ("failed", f"the process that mines in the background ended: {_how(process)}")


def serve(pipe: Connection, threads: int) -> None:
    """The child: takes what is given, then a job after the other, until its parent is gone."""
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    Thread(target=_follow_parent, daemon=True).start()
    try:
        work, given = pipe.recv()
        while True:
            job = pipe.recv()
            pipe.send(answer(work, given, job))
    except (EOFError, OSError):
        sys.exit(1)


def answer(work: Work, given: Any, job: Any) -> Answer:
    """Does a job; whatever goes wrong becomes one line, so that it reaches the one who asked."""
    try:
        return "done", work(given, job)
    except InputError as error:
        return "input", str(error)
    except Exception as error:
        line = (str(error).strip() or "no message").splitlines()[0]
        return "failed", f"mining in the background failed: {type(error).__name__}: {line}"


def spare_device(device: torch.device, *, ranks_here: int) -> torch.device:
    """A device that no rank of this machine trains on; the given one where there is none."""
    if device.type != "cuda" or torch.cuda.device_count() <= ranks_here:
        return device
    return torch.device("cuda", torch.cuda.device_count() - 1)


def _follow_parent() -> None:
    # A parent that is killed leaves its child at work, which would write where the resumed run's child does.
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child has work to end"
    parent.join()
    os._exit(1)


def _start(threads: int) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, threads), daemon=True)
    with _environment({name: str(threads) for name in _THREADS}):
        process.start()
    # With the child's end open here as well, its death would go unnoticed.
    theirs.close()
    return process, ours


def _open(answer: Answer) -> Any:
    kind, result = answer
    if kind == "input":
        raise InputError(result)
    if kind == "failed":
        raise BackgroundFailed(result)
    return result


def _how(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"{signal.Signals(-code).name} killed it; a machine short of memory does that"
    return f"exit code {code}; its last lines are above"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

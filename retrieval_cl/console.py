"""What the commands share: lines on the screen, progress, errors as one line, libraries kept quiet. Light."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from retrieval_cl.core.errors import InputError, RankFailed

EXIT_MACHINE, EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 1, 2, 3, 130
# Under a launcher each rank runs the command; one of them speaks.
_IS_FIRST_RANK = os.environ.get("RANK", "0") == "0"
_NOISY = (
    "transformers",
    "sentence_transformers",
    "huggingface_hub",
    "datasets",
    "httpx",
    "torch",
    "accelerate",
)


TRACEBACK = "--traceback"


class Stop(Exception):
    """A command that ends early in a way of its own: one line and an exit code.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_app(app: Callable[..., Any], *, usage_error: Any, arguments: Sequence[str] | None = None) -> None:
    """Runs a typer app and exits: 0 done, 1 machine trouble, 2 bad input, 3 training failed, 130 Ctrl-C.

    Args:
        app: to call.
        usage_error: what it raises for a wrong command line.
        arguments: None: those the program was started with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    quiet_libraries()
    try:
        # Anywhere in the line, not before the command alone.
        plain = [one for one in given if one != TRACEBACK]
        code = app(plain, prog_name="retrieval-cl", standalone_mode=False)
        if code == EXIT_INTERRUPTED:
            say("interrupted")
    except usage_error as error:
        # Without a command that is the help.
        say(f"error: {error.format_message().rstrip('.')}; see --help" if given else error.format_message())
        code = EXIT_INPUT
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        if TRACEBACK in given:
            traceback.print_exc()
        code, line = explained
        say(line)
    _leave(code)


def _leave(code: int | None) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Threads of the processes' link may outlive it, and then the interpreter's end aborts with all done.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)


def say(line: str) -> None:
    """A line on what happens, beside the result: to stderr, so that the result can be piped."""
    if _IS_FIRST_RANK:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def tell(text: str) -> None:
    """The result of a command."""
    if _IS_FIRST_RANK:
        print(text)  # noqa: T201


def typed_command(arguments: Sequence[str]) -> str:
    """What the user typed, so that a report can say how it was made."""
    return shlex.join(["retrieval-cl", *arguments])


@contextmanager
def training_stops() -> Iterator[None]:
    """Turns Ctrl-C and a failed training into one line, with how to go on."""
    from retrieval_cl.training.interrupts import Interrupted
    from retrieval_cl.training.monitor import TrainingFailed

    try:
        yield
    except Interrupted as stop:
        # A checkpoint lies in <run>/checkpoints; a quickstart has two runs, each with a folder of its own.
        run = None if stop.checkpoint is None else stop.checkpoint.parents[1]
        again = "" if run is None else f"; go on with: retrieval-cl train {shlex.quote(str(run))} --resume"
        raise Stop(f"{stop}{again}", code=EXIT_INTERRUPTED) from stop
    except TrainingFailed as failure:
        raise Stop(f"training failed: {failure}", code=EXIT_FAILED) from failure


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yields what moves a bar by (done, all) where stderr is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def explain(error: Exception) -> tuple[int, str] | None:
    """Exit code and one line for an error a user can do something about; None for a fault of ours."""
    match error:
        case InputError():
            return EXIT_INPUT, f"error: {error}"
        case RankFailed():
            return EXIT_MACHINE, f"error: {error}"
        case Stop():
            return error.code, str(error)
        case OSError():
            return EXIT_MACHINE, f"error: {_describe_os_error(error)}"
    return None


def quiet_libraries() -> None:
    """Keeps notices off the screen that no user can act on; before any of the libraries is imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Forked workers of ours do not tokenise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_NOISY)})(\.|$)")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def _describe_os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    # Some libraries drop the number: numpy tells of a short write, safetensors of the words alone.
    told = re.search(r"No space left|\d+ requested and \d+ written", str(error))
    if told or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: nothing half written was kept; free some space and run it again"
    return f"{error.strerror or error}{where}"

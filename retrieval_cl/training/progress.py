"""What the reader sees while it trains: a moving bar on a terminal, plain lines otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import IO, Any, Protocol, cast, final, runtime_checkable

import torch
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

from retrieval_cl.core.ranks import num_ranks, rank
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.training.run import Callback, Run

LINE_SHARE = 0.05
LINE_SECONDS = 15.0
LOSS_MEMORY = 0.9


@runtime_checkable
class Stream(Protocol):
    """Where text goes: `sys.stdout`, or what stands in for it."""

    def write(self, text: str, /) -> object:
        """Takes text."""

    def flush(self) -> object:
        """Hands it on."""

    def isatty(self) -> bool:
        """Whether a person sees it at once."""


@final
@dataclass(frozen=True)
class Status:
    """What is shown of a run.

    Attributes:
        loss: moving average; None before the first step.
        pairs_per_second: anchors trained a second, over all ranks, without mining and evaluation.
        seconds_left: of wall time, at the pace so far, mining and evaluation included.
        dev: the newest value of the metric that is shown.
    """

    step: int
    steps: int
    round: int
    rounds: int
    loss: float | None = None
    pairs_per_second: float | None = None
    seconds_left: float | None = None
    dev: tuple[str, float] | None = None

    def numbers(self) -> str:
        """Loss, metric, speed and time left, as far as they are known."""
        parts = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        parts += [] if self.dev is None else [f"dev {self.dev[0]} {self.dev[1]:.3f}"]
        parts += [] if self.pairs_per_second is None else [f"{self.pairs_per_second:,.0f} pairs/s"]
        parts += [] if self.seconds_left is None else [f"{_clock(self.seconds_left)} left"]
        return "  ".join(parts)


@runtime_checkable
class Display(Protocol):
    """Where a status is shown."""

    def show(self, status: Status) -> None:
        """Called after each step and before each round."""

    def close(self) -> None:
        """Called once at the end."""


@final
class Lines:
    """A plain line now and then: in a log file, a pipe, a notebook."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._shown: Status | None = None
        self._shown_at = 0.0

    def show(self, status: Status) -> None:
        """Writes a line at a round's start, every 5 % of the steps, every 15 seconds, and at the end."""
        last = self._shown
        is_due = (
            last is None
            or status.round != last.round
            or status.step == status.steps
            or status.step - last.step >= LINE_SHARE * status.steps
            or monotonic() - self._shown_at >= LINE_SECONDS
        )
        if not is_due:
            return
        self._shown, self._shown_at = status, monotonic()
        place = f"round {status.round + 1}/{status.rounds}  step {status.step}/{status.steps}"
        self._stream.write(f"{place}  {status.numbers()}".rstrip() + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is open."""


@final
class Bar:
    """A bar that moves, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[numbers]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def show(self, status: Status) -> None:
        """Moves the bar; rich draws it ten times a second."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=status.steps, numbers="")
        self._bar.update(
            self._task,
            description=f"round {status.round + 1}/{status.rounds}",
            completed=status.step,
            numbers=status.numbers(),
        )

    def close(self) -> None:
        """Leaves the bar as it is and gives the terminal back."""
        self._bar.stop()


@final
class Progress(Callback):
    """Shows where the run stands. Comes before `Remine`: a round is announced before it is mined for."""

    def __init__(self, display: Display, *, metric: str) -> None:
        """`metric` is the value of the newest evaluation that is shown."""
        self._display = display
        self._metric = metric
        self._average: Tensor | None = None
        self._loss: float | None = None
        self._speed: float | None = None
        self._anchors = 0
        self._start: tuple[float, float, int] | None = None

    def on_round(self, run: Run) -> None:
        """Announces the round."""
        if self._start is None:
            self._start = (monotonic(), run.seconds, run.step)
        self._show(run)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Shows the step. Loss and speed are those of the last watched step: others wait for no device."""
        self._average = loss if self._average is None else self._average.lerp(loss, 1 - LOSS_MEMORY)
        self._anchors += len(run.method.sides(embeddings)[0]) * num_ranks()
        if run.is_watched and self._start is not None:
            self._loss = float(self._average)
            self._speed = self._anchors / max(run.seconds - self._start[1], 1e-9)
        self._show(run)

    def on_stop(self, run: Run) -> None:
        """Closes the display."""
        self._display.close()

    def state(self) -> dict[str, Any]:
        """The moving average of the loss; speed and time left are of this process alone."""
        return {"loss": None if self._average is None else float(self._average)}

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Goes on with that average."""
        self._loss = state["loss"]
        self._average = None if self._loss is None else torch.tensor(self._loss, device=run.device)

    def _show(self, run: Run) -> None:
        if rank() != 0 or self._start is None:
            return
        clock, _, step = self._start
        done = run.step - step
        self._display.show(
            Status(
                step=run.step,
                steps=run.steps,
                round=run.round,
                rounds=len(run.round_steps),
                loss=self._loss,
                pairs_per_second=self._speed,
                seconds_left=(monotonic() - clock) / done * (run.steps - run.step) if done else None,
                dev=(self._metric, run.dev[self._metric]) if self._metric in run.dev else None,
            )
        )


def make_display(stream: Stream) -> Display:
    """A bar where the stream is a terminal, else plain lines."""
    return Bar(Console(file=cast("IO[str]", stream))) if stream.isatty() else Lines(stream)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

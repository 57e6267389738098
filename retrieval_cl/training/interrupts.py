"""Ctrl-C and SIGTERM in training: a step is whole or not at all, and a checkpoint is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from retrieval_cl.core.ranks import any_rank, num_ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training was stopped from outside, between two steps.

    Attributes:
        checkpoint: where the run can be taken up again; None where nothing saves checkpoints.
    """

    def __init__(self, step: int, steps: int, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint
        kept = "no checkpoint was asked for" if checkpoint is None else f"checkpoint kept in {checkpoint}"
        super().__init__(f"stopped after step {step} of {steps}; {kept}")


class Interrupts:
    """Within it, a signal raises KeyboardInterrupt where the run is in one piece: between steps or in mining.

    A second signal within a step raises at once; `mid_step` then tells that the weights may be half changed.
    """

    def __init__(self) -> None:
        self.mid_step = False
        self._holding = False
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        # Python hands signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self, device: Any) -> Iterator[None]:
        """A step: a signal waits until it is done, and ranks agree that one of them was told to stop."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if any_rank(self._asked, device=device):
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Ranks may only stop together, at a step's end.
        if self._asked or not (self._holding or num_ranks() > 1):
            self.mid_step = self._holding
            raise KeyboardInterrupt
        self._asked = True

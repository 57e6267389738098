"""What every training run ends with: which weights are kept, what dev said of them, where the time went."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import rank
from retrieval_cl.runs.run_folder import CHECKPOINTS
from retrieval_cl.training.callbacks import Evaluate
from retrieval_cl.training.checkpoint import load_weights, newest_checkpoint, save_weights
from retrieval_cl.training.run import Run

Keep = Literal["best", "last"]


def checkpoint_to_resume(output: Path) -> Path:
    """The newest checkpoint of the run in `output`. Raises InputError where there is none."""
    checkpoint = newest_checkpoint(output / CHECKPOINTS)
    if checkpoint is None:
        raise InputError(f"{output / CHECKPOINTS}: no checkpoint to resume from; start without --resume")
    return checkpoint


def best_keeper(folder: Path) -> Callable[[Run], None]:
    """Saves the weights of the moment as the best so far; `Evaluate` calls it."""

    def keep_best(run: Run) -> None:
        if rank() == 0:
            save_weights(run.method, folder, step=run.step)

    return keep_best


def put_back_kept(run: Run, dev: Evaluate | None, *, keep: Keep, folder: Path) -> int:
    """Puts the weights that are to be kept into the method; returns their step."""
    if dev is None or keep == "last" or dev.best_step in (None, run.step):
        return run.step
    load_weights(run.method, folder)
    return dev.best_step


def dev_at(metrics: Path, step: int) -> dict[str, float]:
    """What was measured on dev at a step; empty for nothing."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf8").splitlines()]
    return next((line["dev"] for line in reversed(lines) if line["step"] == step and "dev" in line), {})


def stages(seconds: Mapping[str, float], *, training: float) -> dict[str, float]:
    """The loop's own seconds, those of the callbacks that are timed, and what is left: mostly checkpoints."""
    beside = {stage: value for stage, value in seconds.items() if stage != "train"}
    rest = seconds["train"] - training - sum(beside.values())
    return {"train": training, **beside, "checkpoints": max(0.0, rest)}

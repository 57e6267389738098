"""What every training run does from its first step to the weights that are kept, whatever it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, final

from torch import nn

from retrieval_cl.core.ranks import rank
from retrieval_cl.mining.samples import ScoreSamples
from retrieval_cl.reporting.curves import Arm, read_arm
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.kept import Keep, checkpoint_to_resume, dev_at, put_back_kept, stages
from retrieval_cl.runs.run_folder import BEST, CHECKPOINTS
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.training.callbacks import Evaluate, Save
from retrieval_cl.training.checkpoint import load_checkpoint
from retrieval_cl.training.fitting import choose_step
from retrieval_cl.training.leaks import CheckLeaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.progress import Display, Progress
from retrieval_cl.training.run import Callback, Run, Source
from retrieval_cl.training.trainer import train

Encoder = TypeVar("Encoder", bound=nn.Module)


@final
@dataclass(frozen=True, eq=False)
class Trained(Generic[Encoder]):
    """What training leaves.

    Attributes:
        encoder: with the kept weights, on its device.
        steps: optimiser steps taken.
        kept_step: the step whose weights were kept.
        metrics: the metrics file.
        dev: metric -> mean on dev under the kept weights; empty where nothing is measured there.
        rounds: what each round of mining did; those before a resume are not in it.
        scores: cosines under the weights of the last mining of texts; None without.
        seconds: stage -> wall seconds of this process.
    """

    encoder: Encoder
    steps: int
    kept_step: int
    metrics: Path
    dev: Mapping[str, float] = field(default_factory=dict)
    rounds: Sequence[MiningRound] = ()
    scores: ScoreSamples | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def arm(self, name: str) -> Arm:
        """The run's curves, for a report."""
        return read_arm(self.metrics, name=name)


@final
@dataclass(frozen=True, eq=False)
class Ended:
    """Where a run ended: the step whose weights were put back, dev under them (rank 0), seconds by stage."""

    kept_step: int
    dev: Mapping[str, float]
    seconds: Mapping[str, float]


def train_to_the_end(
    run: Run,
    source: Source,
    *,
    vectors: Callback,
    remining: Sequence[Callback],
    dev: Evaluate | None,
    keep: Keep,
    metric: str,
    output: Path,
    log: MetricsLog,
    watch: Stopwatch,
    display: Display | None,
    resume: bool,
) -> Ended:
    """Trains to the last step, with all that looks on, and puts the weights back that are to be kept.

    Args:
        run: at its first step.
        source: of its batches.
        vectors: forgets, after each step, what was embedded before it.
        remining: what mines at a round's start; empty for nothing.
        dev: what measures on dev; None: nothing does.
        keep: weights that are kept.
        metric: of dev, that progress shows.
        output: folder of the run.
        log: of its metrics.
        watch: of its stages.
        display: where progress is shown.
        resume: go on from the newest checkpoint in `output`.

    Raises:
        InputError: there is no checkpoint to resume from, or the method leaks.
        Interrupted: Ctrl-C came; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    take_step, step_callbacks = choose_step(run.config, log)
    callbacks: list[Callback] = [vectors, Monitor(log), *step_callbacks]
    callbacks += [Progress(display, metric=metric)] if display is not None else []
    callbacks += [*remining, CheckLeaks(source, log)]
    callbacks += [dev] if dev is not None else []
    callbacks.append(Save(output / CHECKPOINTS, list(callbacks)))
    if resume:
        load_checkpoint(checkpoint_to_resume(output), run, callbacks=callbacks)
    with watch("train"):
        train(run, source, callbacks=callbacks, take_step=take_step)
    kept_step = put_back_kept(run, dev, keep=keep, folder=output / BEST)
    # The file is the first process's: another might read it before its last line is whole.
    found = dev_at(log.path, kept_step) if rank() == 0 else {}
    return Ended(kept_step, found, stages(watch.seconds, training=run.seconds))

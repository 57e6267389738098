"""Trains a dual encoder on prepared texts: rounds of mining with the current weights and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from retrieval_cl.config import mines
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.methods import load_method
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.samples import ScoreSamples
from retrieval_cl.reporting.curves import Arm, read_arm
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.config import EvaluationConfig
from retrieval_cl.runs.dev import DevSet
from retrieval_cl.runs.kept import best_keeper, checkpoint_to_resume, dev_at, put_back_kept, stages
from retrieval_cl.runs.prepare import PreparedText, given_table, text_pairs
from retrieval_cl.runs.remining import build_remining
from retrieval_cl.runs.run_folder import BEST, CHECKPOINTS, METRICS
from retrieval_cl.runs.sharing import over_all_ranks
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.callbacks import Evaluate, Save
from retrieval_cl.training.checkpoint import load_checkpoint
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.fitting import choose_step
from retrieval_cl.training.leaks import CheckLeaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Monitor
from retrieval_cl.training.progress import Display, Progress
from retrieval_cl.training.run import Callback
from retrieval_cl.training.trainer import start_run, train

TEXT_VIEWS = ("query", "positive", "negative")


@final
@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What training leaves.

    Attributes:
        encoder: with the kept weights, on its device.
        steps: optimiser steps taken.
        kept_step: the step whose weights were kept.
        metrics: the metrics file.
        dev: metric -> mean on dev under the kept weights; empty without a dev split.
        rounds: what each round of mining did; those before a resume are not in it.
        scores: cosines under the weights of the last mining; None without mining.
        seconds: stage -> wall seconds of this process.
    """

    encoder: TextEncoder
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


def train_dual_encoder(
    text: PreparedText,
    encoder: TextEncoder,
    *,
    method: MethodConfig,
    mining: MiningConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    output: Path,
    extra: Mapping[str, Hits] | None = None,
    display: Display | None = None,
    resume: bool = False,
) -> TrainedRun:
    """Trains `encoder` in place; metrics, checkpoints and the best weights go to `output`.

    Before `first_mined_round`, or with `num_negatives` 0, a query meets the other positives of its batch; and
    in the first case the negatives that the data itself names, where it does.

    Args:
        text: what `prepare_text` gave for an encoder with this tokenizer.
        encoder: what is trained.
        method: who is compared with whom.
        mining: how each round's negatives are found.
        training: how long and how fast.
        evaluation: what is watched on dev, and whether the best or the last weights are kept.
        output: folder of the run.
        extra: further candidates for mining by source name (`lexical`); row i is for the i-th train query.
        display: where progress is shown.
        resume: go on from the newest checkpoint in `output`.

    Raises:
        InputError: settings and data do not fit, there is no checkpoint to resume from, or the method leaks.
        Interrupted: Ctrl-C came; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    watch = Stopwatch()
    device = start_accelerator().device
    model = _method_class(method.name).build(method, encoder).to(device)
    source = text_pairs(text, batch_size=training.batch_size, num_negatives=training.num_negatives)
    run = start_run(model, training, steps_per_epoch=source.steps_per_epoch)
    run.negatives = given_table(text.data, num_negatives=training.num_negatives)
    log = MetricsLog(output / METRICS)
    vectors = Vectors(text, encoder, precision=training.precision, sharing=over_all_ranks(device))
    miner, remining = build_remining(
        text,
        encoder,
        vectors=vectors,
        mining=mining,
        training=training,
        extra=extra,
        folder=output / CHECKPOINTS,
        watch=watch,
        log=log,
    )
    dev = _dev_callback(
        text, vectors, evaluation, log=log, watch=watch, folder=output / BEST, seed=training.seed
    )
    take_step, step_callbacks = choose_step(training, log)
    callbacks: list[Callback] = [vectors, Monitor(log), *step_callbacks]
    callbacks += [Progress(display, metric=evaluation.metric)] if display is not None else []
    callbacks += remining if mines(training) else []
    callbacks.append(CheckLeaks(source, log))
    callbacks += [dev] if dev is not None else []
    callbacks.append(Save(output / CHECKPOINTS, list(callbacks)))
    if resume:
        load_checkpoint(checkpoint_to_resume(output), run, callbacks=callbacks)
    with watch("train"):
        train(run, source, callbacks=callbacks, take_step=take_step)
    kept_step = put_back_kept(run, dev, keep=evaluation.keep, folder=output / BEST)
    return TrainedRun(
        encoder=encoder,
        steps=run.step,
        kept_step=kept_step,
        metrics=log.path,
        dev=dev_at(log.path, kept_step),
        rounds=tuple(miner.rounds),
        scores=miner.scores,
        seconds=stages(watch.seconds, training=run.seconds),
    )


def _method_class(name: str) -> Any:
    """The method of that name. Raises InputError where it needs other views than text pairs give."""
    found = load_method(name)
    if found.views[:2] != TEXT_VIEWS[:2]:
        raise InputError(
            f"method '{name}' needs views {', '.join(found.views)}; text gives {', '.join(TEXT_VIEWS)}. "
            "Set method.name to dual_encoder"
        )
    return found


def _dev_callback(
    text: PreparedText,
    vectors: Vectors,
    evaluation: EvaluationConfig,
    *,
    log: MetricsLog,
    watch: Stopwatch,
    folder: Path,
    seed: int,
) -> Evaluate | None:
    if "dev" not in text.data.splits:
        return None

    return Evaluate(
        DevSet(text, vectors, config=evaluation, seed=seed, watch=watch),
        log,
        metric=evaluation.metric,
        keep_best=best_keeper(folder) if evaluation.keep == "best" else None,
    )

"""Trains a dual encoder on prepared texts: rounds of mining with the current weights and training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval_cl.config import mines
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.methods import load_method
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.config import EvaluationConfig
from retrieval_cl.runs.dev import DevSet
from retrieval_cl.runs.kept import best_keeper
from retrieval_cl.runs.prepare import PreparedText, given_table, text_pairs
from retrieval_cl.runs.remining import build_remining
from retrieval_cl.runs.run_folder import BEST, CHECKPOINTS, METRICS
from retrieval_cl.runs.sharing import over_all_ranks
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.to_the_end import Trained, train_to_the_end
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.callbacks import Evaluate
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.progress import Display
from retrieval_cl.training.trainer import start_run

TEXT_VIEWS = ("query", "positive", "negative")


TrainedRun = Trained[TextEncoder]


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
    ended = train_to_the_end(
        run,
        source,
        vectors=vectors,
        remining=remining if mines(training) else [],
        dev=dev,
        keep=evaluation.keep,
        metric=evaluation.metric,
        output=output,
        log=log,
        watch=watch,
        display=display,
        resume=resume,
    )
    return Trained(
        encoder=encoder,
        steps=run.step,
        kept_step=ended.kept_step,
        metrics=log.path,
        dev=ended.dev,
        rounds=tuple(miner.rounds),
        scores=miner.scores,
        seconds=ended.seconds,
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

"""The whole training story: data, encoder, rounds, the model folder, results and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.config import RunConfig, check_training, mines
from retrieval_cl.core.files import write_json
from retrieval_cl.core.ranks import rank
from retrieval_cl.encoders.load import build_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.reporting.training_report import write_training_report
from retrieval_cl.runs.dual_encoder import TrainedRun, train_dual_encoder
from retrieval_cl.runs.early_checks import check_mining
from retrieval_cl.runs.evaluate import PER_QUERY, RESULTS, Say
from retrieval_cl.runs.held_out import HeldOut
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.prepare import prepare_text, require_split
from retrieval_cl.runs.refresh import refresh_lines
from retrieval_cl.runs.reports import describe_data, training_report
from retrieval_cl.runs.run_folder import MODEL, REPORT, check_entry, enter
from retrieval_cl.runs.same_data import note_data
from retrieval_cl.runs.scoreboard import Scoreboard
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.sources.load import load
from retrieval_cl.sources.records import RetrievalData
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.progress import Display

ZERO_SHOT, FINE_TUNED, TRAINED = "zero-shot", "fine-tuned", "trained"


@final
@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `train` leaves.

    Attributes:
        folder: with model/, results.json, report.html, metrics.jsonl, config.yaml and checkpoints/.
        run: the training.
        scoreboard: the systems on the reported split; None where the data has no such split.
    """

    folder: Path
    run: TrainedRun
    scoreboard: Scoreboard | None

    def text(self) -> str:
        """The outcome, for a terminal."""
        if self.scoreboard is not None:
            return self.scoreboard.text()
        return "\n".join(f"dev {metric} {value:.3f}" for metric, value in self.run.dev.items())


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "retrieval-cl train",
    display: Display | None = None,
    say: Say = lambda line: None,
) -> TrainResult:
    """Trains, saves the model, and measures it on the split of `config.evaluation` where the data has it.

    A pretrained encoder is measured before training too (`zero-shot`).

    Args:
        config: all of it; of the section index only k1 and b of BM25.
        resume: go on from the newest checkpoint in the run's folder.
        overwrite: take the place of a run that stands there.
        command: what the user typed, for the report.
        display: where training shows its progress.
        say: gets a line now and then.

    Raises:
        InputError: settings or data are wrong, or the folder holds a run already.
        Interrupted: Ctrl-C came; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    check_training(config)
    check_entry(config.folder, config, resume=resume, overwrite=overwrite)
    watch = Stopwatch()
    with watch("data"):
        data = load(config.source)
    say(describe_data(data))
    with watch("encoder"):
        encoder = encoder_for(config, data).to(start_accelerator().device)
    if mines(config.training):
        check_mining(config.mining, data, dim=encoder.dim, in_rounds=True)
    with watch("tokens"):
        text = prepare_text(data, encoder)
    enter(config.folder, config, resume=resume, overwrite=overwrite)
    note_data(config.folder, data)
    is_pretrained = config.encoder.kind != "static"
    found = {}
    with watch("evaluate"):
        held_out = _held_out(data, config)
        if held_out is not None and is_pretrained:
            found[ZERO_SHOT] = held_out.search(encoder)
    run = train_dual_encoder(
        text,
        encoder,
        method=config.method,
        mining=config.mining,
        training=config.training,
        evaluation=config.evaluation,
        output=config.folder,
        display=display,
        resume=resume,
    )
    for line in refresh_lines(run.rounds):
        say(line)
    if rank() == 0:
        encoder.save(config.folder / MODEL)
    scoreboard = None
    if held_out is not None:
        with watch("evaluate"):
            name = FINE_TUNED if is_pretrained else TRAINED
            found[name] = held_out.search(encoder)
            scoreboard = held_out.compare(found, best=name)
    result = TrainResult(config.folder, run, scoreboard)
    if rank() == 0:
        seconds = {**watch.seconds, **run.seconds}
        _write(result, config, data, held_out, seconds=seconds, total=watch.total, command=command)
    return result


def encoder_for(config: RunConfig, data: RetrievalData) -> TextEncoder:
    """The encoder that training starts from; a static one gets its tokenizer from the corpus."""
    return build_encoder(
        config.encoder,
        corpus_texts=data.passages.full,
        train_queries=lambda: _train_queries(data),
        train_passages=_right_pairs(data)[1],
        seed=config.training.seed,
    )


def _held_out(data: RetrievalData, config: RunConfig) -> HeldOut | None:
    # A data set without a test split is trained on all the same; a split that was asked for must be there.
    asked = "split" in config.evaluation.model_fields_set
    return HeldOut.of(data, config) if asked or config.evaluation.split in data.splits else None


def _train_queries(data: RetrievalData) -> list[str]:
    texts = data.queries.full()
    return [texts[row] for row in _right_pairs(data)[0].tolist()]


def _right_pairs(data: RetrievalData) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Query row and passage row of each training pair."""
    qrels = require_split(data, "train")
    right = qrels.grades >= 1
    return qrels.queries[right], qrels.passages[right]


def _write(
    result: TrainResult,
    config: RunConfig,
    data: RetrievalData,
    held_out: HeldOut | None,
    *,
    seconds: dict[str, float],
    total: float,
    command: str,
) -> None:
    folder, run, scoreboard = result.folder, result.run, result.scoreboard
    if scoreboard is not None:
        scoreboard.write_per_query(folder / PER_QUERY, data)
    facts: dict[str, Any] = {
        "name": config.name,
        "data": data.name,
        "num_passages": len(data.passages),
        **{f"num_{split}_queries": len(qrels.judged_queries) for split, qrels in data.splits.items()},
        "dim": run.encoder.dim,
        "num_parameters": sum(weight.numel() for weight in run.encoder.parameters()),
        "steps": run.steps,
        "kept_step": run.kept_step,
        "dev": dict(run.dev),
        **({} if scoreboard is None else scoreboard.to_json()),
        **({} if held_out is None else {"bm25": held_out.words.describe()}),
        "seconds": total,
        "seconds_by_stage": seconds,
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
        "command": command,
        "settings": config.model_dump(mode="json"),
        "made_by": dict(data.made_by),
    }
    write_json(folder / RESULTS, facts)
    report = training_report(
        run, config, data, held_out, scoreboard, seconds=seconds, total=total, command=command
    )
    write_training_report(folder / REPORT, report)

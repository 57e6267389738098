"""The whole story of training on images with texts: data, encoder, rounds, the model folder, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from retrieval_cl.config import ImageTextRunConfig, check_training
from retrieval_cl.core.files import write_json
from retrieval_cl.core.ranks import rank
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.load_image_text import build_image_text_encoder
from retrieval_cl.evaluation.results import write_per_query
from retrieval_cl.reporting.image_text_report import write_image_text_report
from retrieval_cl.runs.evaluate import RESULTS, Say
from retrieval_cl.runs.image_text_board import ImageTextBoard, describe_protocol
from retrieval_cl.runs.image_text_config import DIRECTIONS
from retrieval_cl.runs.image_text_reports import image_text_report
from retrieval_cl.runs.image_text_scores import (
    EncodeRows,
    ImageTextTasks,
    Rows,
    Values,
    require_split,
)
from retrieval_cl.runs.image_text_training import TrainedImageText, train_on_image_text
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.run_folder import MODEL, REPORT, check_entry, enter
from retrieval_cl.runs.self_supervised import join_near_copies
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.load import load_image_text
from retrieval_cl.sources.image_text.relations import Matches, find_matches
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.progress import Display

# What sources count in `made_by`, in words.
_LEFT_OUT = {
    "broken": "broken or missing",
    "leaked_train_images": "train images left out: a held-out one has the same pixels",
    "images_without_split": "of no split",
    "rows_without_image": "rows without an image",
    "empty_captions": "empty captions",
    "repeated_captions": "captions that an image had twice",
}
TRAINED, BEFORE = "trained", "before training"
FINE_TUNED, ZERO_SHOT_MODEL = "fine-tuned", "zero-shot"


@final
@dataclass(frozen=True, eq=False)
class ImageTextTrainResult:
    """What `train_image_text` leaves.

    Attributes:
        folder: with model/, results.json, report.html, metrics.jsonl, config.yaml and checkpoints/.
        run: the training.
        board: what was measured; None where the data has no such split.
    """

    folder: Path
    run: TrainedImageText
    board: ImageTextBoard | None

    def text(self) -> str:
        """The outcome, for a terminal."""
        if self.board is not None:
            return self.board.text()
        return "\n".join(f"dev {metric} {value:.3f}" for metric, value in self.run.dev.items())


def train_image_text(
    config: ImageTextRunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "retrieval-cl train",
    display: Display | None = None,
    say: Say = lambda line: None,
) -> ImageTextTrainResult:
    """Trains, saves the model, and measures it in both directions beside itself before training.

    Args:
        config: all of it; the section index is not read.
        resume: go on from the newest checkpoint in the run's folder.
        overwrite: take the place of a run that stands there.
        command: what the user typed, for the results.
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
    device = start_accelerator().device
    with watch("data"):
        data = load_image_text(config.source)
        train = require_split(data, "train")
        matches = find_matches(data)
        if config.source.near_copies:
            items = join_near_copies(data.images, matches.image_items, rows=train, device=device)
            matches = find_matches(data, image_items=items)
    say(describe_data(data, matches))
    with watch("encoder"):
        captions = [data.captions[row] for row in data.captions_of(train).tolist()]
        encoder = build_image_text_encoder(
            config.encoder, train_captions=captions, seed=config.training.seed
        ).to(device)
    tasks = _tasks(config, data, matches)
    enter(config.folder, config, resume=resume, overwrite=overwrite)
    pretrained = config.encoder.kind == "pretrained"
    before, after = (ZERO_SHOT_MODEL, FINE_TUNED) if pretrained else (BEFORE, TRAINED)
    found: dict[str, dict[str, Values]] = {}
    if tasks is not None:
        with watch("evaluate"):
            found[before] = measure(tasks, encoder, data)
    run = train_on_image_text(data, encoder, matches=matches, config=config, display=display, resume=resume)
    if rank() == 0:
        encoder.save(config.folder / MODEL)
    board = None
    if tasks is not None:
        with watch("evaluate"):
            found[after] = measure(tasks, encoder, data)
        protocol = describe_protocol(tasks, split=config.evaluation.split)
        board = ImageTextBoard.of(found, pairs=[(after, before)], protocol=protocol)
    result = ImageTextTrainResult(config.folder, run, board)
    if rank() == 0:
        if tasks is not None and board is not None:
            write_values(config.folder, board, tasks, data)
        seconds = {**watch.seconds, **run.seconds}
        facts = _facts(
            result, config, data, system=after, seconds=seconds, total=watch.total, command=command
        )
        write_json(config.folder / RESULTS, facts)
        report = image_text_report(
            run,
            config,
            data,
            matches,
            tasks=tasks,
            board=board,
            seconds=seconds,
            total=watch.total,
            command=command,
        )
        write_image_text_report(config.folder / REPORT, report)
    return result


def measure(tasks: ImageTextTasks, encoder: ImageTextEncoder, data: ImageTextData) -> dict[str, Values]:
    """What a model scores on the tasks: part -> metric -> a value a query."""
    return tasks.measure(encoder, *encoders_of(encoder, data))


def encoders_of(encoder: ImageTextEncoder, data: ImageTextData) -> tuple[EncodeRows, EncodeRows]:
    """What embeds images and captions of the data by their rows."""

    def images(rows: Rows) -> np.ndarray:
        return encoder.encode_images(data.images, rows=rows)

    def captions(rows: Rows) -> np.ndarray:
        return encoder.encode_texts([data.captions[row] for row in rows.tolist()])

    return images, captions


def write_values(folder: Path, board: ImageTextBoard, tasks: ImageTextTasks, data: ImageTextData) -> None:
    """Writes a line a query for each direction: `text_to_image.jsonl` and `image_to_text.jsonl`."""
    captions = [data.captions[row] for row in tasks.cross_modal.captions.tolist()]
    images = [data.ids[row] for row in tasks.cross_modal.images.tolist()]
    for part, ids in zip(DIRECTIONS, (captions, images), strict=True):
        write_per_query(folder / f"{part}.jsonl", list(board.systems[part].values()), query_ids=ids)


def describe_data(data: ImageTextData, matches: Matches) -> str:
    """A line about the data."""
    height, width = data.images.size
    splits = ", ".join(f"{name} {len(rows):,}" for name, rows in data.splits.items())
    distinct = len(np.unique(matches.caption_items))
    left_out = [
        f"{number:,} {what}"
        for key, what in _LEFT_OUT.items()
        if (number := _count(data.made_by.get(key, 0)))
    ]
    return "; ".join(
        [
            f"{data.name}: {len(data.images):,} images of {height}x{width} ({splits}), "
            f"{len(data.captions):,} captions, {distinct:,} of them distinct",
            *left_out,
        ]
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


def _tasks(config: ImageTextRunConfig, data: ImageTextData, matches: Matches) -> ImageTextTasks | None:
    # A data set without a test split is trained on all the same; a split that was asked for must be there.
    evaluation = config.evaluation
    if "split" not in evaluation.model_fields_set and evaluation.split not in data.splits:
        return None
    return ImageTextTasks.of(data, matches, split=evaluation.split, templates=evaluation.templates)


def _facts(
    result: ImageTextTrainResult,
    config: ImageTextRunConfig,
    data: ImageTextData,
    *,
    system: str,
    seconds: Mapping[str, float],
    total: float,
    command: str,
) -> dict[str, Any]:
    """What results.json says."""
    run = result.run
    return {
        "name": config.name,
        "data": data.name,
        **{f"num_{split}_images": len(rows) for split, rows in data.splits.items()},
        "num_captions": len(data.captions),
        "dim": run.encoder.dim,
        "num_parameters": sum(weight.numel() for weight in run.encoder.parameters()),
        "steps": run.steps,
        "kept_step": run.kept_step,
        "dev": dict(run.dev),
        **({} if result.board is None else result.board.to_json(system)),
        "seconds": total,
        "seconds_by_stage": dict(seconds),
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
        "command": command,
        "settings": config.model_dump(mode="json"),
        "made_by": dict(data.made_by),
    }

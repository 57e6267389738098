"""The whole story of training on images: data, encoder, rounds, the model folder, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.config import ImageRunConfig, check_training
from retrieval_cl.core.files import write_json
from retrieval_cl.core.images import Images
from retrieval_cl.core.ranks import rank
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.reporting.image_report import write_image_report
from retrieval_cl.runs.evaluate import RESULTS, Say
from retrieval_cl.runs.image_neighbours import neighbour_rows, task_without_classes
from retrieval_cl.runs.image_reports import image_report
from retrieval_cl.runs.image_results import (
    KNN,
    RANDOM_ENCODER,
    RAW_PIXELS,
    ImageScores,
    embed_all,
    linearly_right,
    named_right,
)
from retrieval_cl.runs.image_scores import (
    Embedded,
    Encode,
    Task,
    describe_protocol,
    embed,
    pixel_vectors,
    require_split,
    tasks_of,
)
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.run_folder import MODEL, REPORT, check_entry, enter
from retrieval_cl.runs.self_supervised import TrainedImages, train_on_images
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.sources.images.copies import Copies, find_copies
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.progress import Display


@final
@dataclass(frozen=True, eq=False)
class ImageTrainResult:
    """What `train_images` leaves.

    Attributes:
        folder: with model/, results.json, report.html, metrics.jsonl, config.yaml and checkpoints/.
        run: the training.
        scores: what was measured; empty where the data names no two classes.
    """

    folder: Path
    run: TrainedImages
    scores: ImageScores

    def text(self) -> str:
        """The outcome, for a terminal."""
        return self.scores.text()


def train_images(
    config: ImageRunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "retrieval-cl train",
    display: Display | None = None,
    say: Say = lambda line: None,
) -> ImageTrainResult:
    """Trains, saves the encoder, and measures its features beside raw pixels and its untrained self.

    Args:
        config: all of it.
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
        data = load_images(config.source)
        require_split(data, "train")
        copies = find_copies(data.images)
    say(_describe(data, copies))
    with watch("encoder"):
        encoder = build_image_encoder(config.encoder, seed=config.training.seed).to(device)
    tasks = _tasks(config, data)
    enter(config.folder, config, resume=resume, overwrite=overwrite)
    options = {"config": config.evaluation, "device": device}
    with watch("evaluate"):
        right = named_right(tasks, embed_all(tasks, pixel_vectors), knn=RAW_PIXELS, **options)
        right |= named_right(tasks, embed_all(tasks, _encode(encoder)), knn=RANDOM_ENCODER, **options)
    run = train_on_images(data, encoder, groups=copies.groups, config=config, display=display, resume=resume)
    if rank() == 0:
        encoder.save(config.folder / MODEL)
    with watch("evaluate"):
        embedded = embed_all(tasks, _encode(encoder))
        trained = named_right(tasks, embedded, knn=KNN, **options)
        if config.evaluation.linear:
            trained |= linearly_right(tasks, embedded, seed=config.training.seed)
    protocol = describe_protocol(config.evaluation, tasks[""]) if tasks else {}
    scores = ImageScores(trained | right, protocol, tuple(tasks))
    if rank() == 0:
        with watch("report"):
            neighbours = _neighbours(config, data, encoder, tasks=tasks, embedded=embedded)
        seconds = {**watch.seconds, **run.seconds}
        facts = _facts(
            run,
            config,
            data,
            scores=scores,
            seconds=seconds,
            total=watch.total,
            command=command,
        )
        write_json(config.folder / RESULTS, facts)
        report = image_report(
            run,
            config,
            data,
            copies=copies,
            scores=scores,
            neighbours=neighbours,
            seconds=seconds,
            total=watch.total,
            command=command,
        )
        write_image_report(config.folder / REPORT, report)
    return ImageTrainResult(config.folder, run, scores)


def item_ids(data: ImageData) -> Int64[np.ndarray, " N"]:
    """Item id of every image: copies, pixel for pixel, share one."""
    return find_copies(data.images).groups


def _tasks(config: ImageRunConfig, data: ImageData) -> dict[str, Task]:
    # A data set without a test split is trained on all the same; a split that was asked for must be there.
    asked = "split" in config.evaluation.model_fields_set
    return tasks_of(config, data) if asked or config.evaluation.split in data.splits else {}


def _encode(encoder: ImageEncoder) -> Encode:
    def encode(images: Images, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R F"]:
        return encoder.encode(images, rows=rows)

    return encode


def _describe(data: ImageData, copies: Copies) -> str:
    """A line about the data."""
    height, width = data.images.size
    splits = ", ".join(f"{name} {len(rows):,}" for name, rows in data.splits.items())
    again = len(data.images) - len(np.unique(copies.groups))
    twice = f"; {again:,} are copies of others" if again else ""
    return f"{data.name}: {len(data.images):,} images of {height}x{width} ({splits}){twice}"


def _neighbours(
    config: ImageRunConfig,
    data: ImageData,
    encoder: ImageEncoder,
    *,
    tasks: Mapping[str, Task],
    embedded: Mapping[str, Embedded],
) -> list[list[Tile]]:
    """Rows of a contact sheet: of the last task, or of images whose classes nobody knows."""
    if tasks:
        ending = list(tasks)[-1]
        task, vectors = tasks[ending], embedded[ending]
    else:
        task = task_without_classes(data, split=config.evaluation.split)
        vectors = embed(task, _encode(encoder))
    return neighbour_rows(task, vectors, classes=data.classes, device=encoder.device)


def _facts(
    run: TrainedImages,
    config: ImageRunConfig,
    data: ImageData,
    *,
    scores: ImageScores,
    seconds: Mapping[str, float],
    total: float,
    command: str,
) -> dict[str, Any]:
    """What results.json says."""
    return {
        "name": config.name,
        "data": data.name,
        **{f"num_{split}_images": len(rows) for split, rows in data.splits.items()},
        "dim": run.encoder.dim,
        "num_parameters": sum(weight.numel() for weight in run.encoder.parameters()),
        "steps": run.steps,
        "kept_step": run.kept_step,
        "dev": dict(run.dev),
        **scores.to_json(),
        "seconds": total,
        "seconds_by_stage": dict(seconds),
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
        "command": command,
        "settings": config.model_dump(mode="json"),
        "made_by": dict(data.made_by),
    }

"""Trains an image encoder without labels: SimCLR, MoCo or BYOL on augmented views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.config import ImageRunConfig, mines
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import Images
from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.methods import load_method
from retrieval_cl.methods.method import Method
from retrieval_cl.runs.image_rounds import ImageMiner
from retrieval_cl.runs.image_scores import Task, embed, found_first, named_by, nearest
from retrieval_cl.runs.image_vectors import ImageVectors
from retrieval_cl.runs.kept import best_keeper
from retrieval_cl.runs.run_folder import BEST, METRICS
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.to_the_end import Trained, train_to_the_end
from retrieval_cl.sources.images.copies import join_items
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.image_views import ImageViews
from retrieval_cl.sources.images.near import near_by_hash
from retrieval_cl.sources.images.placed import PickedImages, to_device
from retrieval_cl.training.callbacks import Evaluate, Remine
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.progress import Display
from retrieval_cl.training.run import Run
from retrieval_cl.training.trainer import start_run

METRIC, FIRST = "knn_accuracy", "success@1"
# Stream of random numbers of the heads' first weights, beside that of the encoder's.
HEADS = 1


TrainedImages = Trained[ImageEncoder]


def train_on_images(
    data: ImageData,
    encoder: ImageEncoder,
    *,
    groups: Int64[np.ndarray, " N"],
    config: ImageRunConfig,
    display: Display | None = None,
    resume: bool = False,
) -> TrainedImages:
    """Trains `encoder` in place; metrics, checkpoints and the best weights go to the run's folder.

    Args:
        data: its split train is trained on; labels are looked at on dev alone.
        encoder: what is trained; heads are made for training and left behind.
        groups: item id of every image; copies share one.
        config: all of it.
        display: where progress is shown.
        resume: go on from the newest checkpoint in the run's folder.

    The images lie on the device while it trains, where they fit `source.device_gb`.

    Raises:
        InputError: settings and data do not fit, there is no checkpoint to resume from, or the method leaks.
        Interrupted: Ctrl-C came; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    watch, output = Stopwatch(), config.folder
    training = config.training
    device = start_accelerator().device
    method = build_method(config, encoder).to(device)
    if config.source.near_copies:
        with watch("near copies"):
            groups = join_near_copies(data.images, groups, rows=data.splits["train"], device=device)
    data, rows = _placed(data, device, max_gb=config.source.device_gb), data.splits["train"]
    source = image_views(data, encoder, groups=groups, config=config)
    run = start_run(method, training, steps_per_epoch=source.steps_per_epoch)
    log = MetricsLog(output / METRICS)
    vectors = ImageVectors(data.images, encoder, precision=training.precision)
    miner = ImageMiner(vectors, rows=rows, groups=groups[rows], mining=config.mining, watch=watch, log=log)
    dev = _dev_callback(data, vectors, config, log=log, watch=watch)
    ended = train_to_the_end(
        run,
        source,
        vectors=vectors,
        remining=[Remine(miner, log)] if mines(training) else [],
        dev=dev,
        keep=config.evaluation.keep,
        metric=METRIC,
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
        seconds=ended.seconds,
    )


def build_method(config: ImageRunConfig, encoder: ImageEncoder) -> Method:
    """The method around the encoder. Its heads start alike on every rank and in every run of one seed."""
    words = np.random.SeedSequence([config.training.seed, HEADS]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(words[0] >> np.uint64(1)))
        return load_method(config.method.name).build(config.method, encoder)


def image_views(
    data: ImageData, encoder: ImageEncoder, *, groups: Int64[np.ndarray, " N"], config: ImageRunConfig
) -> ImageViews:
    """The training source: two augmented views of every train image.

    Raises:
        InputError: the batch is larger than the number of train images, or ranks do not divide it.
    """
    training, rows = config.training, data.splits["train"]
    if not 2 <= training.batch_size <= len(rows):
        raise InputError(
            f"training.batch_size {training.batch_size}; valid is 2 to {len(rows)}, the train images of "
            f"'{data.name}'"
        )
    if training.batch_size % num_ranks():
        raise InputError(f"training.batch_size {training.batch_size}: not a multiple of {num_ranks()} ranks")
    return ImageViews(
        data.images,
        rows=rows,
        groups=groups,
        augment=build_views(config.augmentation, size=encoder.size, mean=encoder.mean, std=encoder.std),
        batch_size=training.batch_size,
        device=encoder.device,
        num_negatives=training.num_negatives,
    )


def join_near_copies(
    images: Images, groups: Int64[np.ndarray, " N"], *, rows: Int64[np.ndarray, " n"], device: torch.device
) -> Int64[np.ndarray, " N"]:
    """Item ids after those of the given rows that look alike have become one item; see `near_by_hash`."""
    pairs = near_by_hash(PickedImages(images, rows), device=device)
    return join_items(groups, rows[pairs])


def _placed(data: ImageData, device: torch.device, *, max_gb: float) -> ImageData:
    """The same data, its images on a GPU where they fit."""
    if device.type != "cuda":
        return data
    return replace(data, images=to_device(data.images, device, max_gb=max_gb))


def _dev_callback(
    data: ImageData, vectors: ImageVectors, config: ImageRunConfig, *, log: MetricsLog, watch: Stopwatch
) -> Evaluate | None:
    evaluation = config.evaluation
    task = Task.of_dev(data, max_images=evaluation.dev_images, seed=config.training.seed)
    if task is None:
        return None

    def measure(run: Run) -> Mapping[str, float]:
        with watch("evaluate on dev"):
            embedded = embed(task, lambda images, rows: vectors.of(rows))
            hits = nearest(task, embedded, config=evaluation, device=run.device)
            right = named_by(task, hits, config=evaluation)
            return {METRIC: float(right.mean()), FIRST: float(found_first(task, hits).mean())}

    keep = best_keeper(config.folder / BEST) if evaluation.keep == "best" else None
    return Evaluate(measure, log, metric=METRIC, keep_best=keep)

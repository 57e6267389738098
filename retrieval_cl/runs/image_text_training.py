"""Trains an image-text encoder: CLIP on pairs of image and caption, with mined hard negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.config import ImageTextRunConfig, mines
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.methods import load_method
from retrieval_cl.methods.clip import Clip
from retrieval_cl.methods.method import Method
from retrieval_cl.runs.image_text_probe import GUARDED, PROBE, Probe
from retrieval_cl.runs.image_text_rounds import ImageTextMiner
from retrieval_cl.runs.image_text_scores import ImageTextTasks, means
from retrieval_cl.runs.image_text_vectors import ImageTextVectors
from retrieval_cl.runs.kept import best_keeper, dev_at
from retrieval_cl.runs.run_folder import BEST, METRICS
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.to_the_end import Trained, train_to_the_end
from retrieval_cl.sources.image_text.batches import ImageTextBatches
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import Matches
from retrieval_cl.sources.images.placed import to_device
from retrieval_cl.training.callbacks import Evaluate, Remine
from retrieval_cl.training.device import start_accelerator
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.progress import Display
from retrieval_cl.training.run import Run
from retrieval_cl.training.trainer import start_run

TrainedImageText = Trained[ImageTextEncoder]


def train_on_image_text(
    data: ImageTextData,
    encoder: ImageTextEncoder,
    *,
    matches: Matches,
    config: ImageTextRunConfig,
    display: Display | None = None,
    resume: bool = False,
) -> TrainedImageText:
    """Trains `encoder` in place; metrics, checkpoints and the best weights go to the run's folder.

    Args:
        data: its split train is trained on.
        encoder: what is trained.
        matches: which captions are known to match which image.
        config: all of it.
        display: where progress is shown.
        resume: go on from the newest checkpoint in the run's folder.

    Raises:
        InputError: settings and data do not fit, there is no checkpoint to resume from, or the method leaks.
        Interrupted: Ctrl-C came; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    watch, output, training = Stopwatch(), config.folder, config.training
    device = start_accelerator().device
    method = load_method(config.method.name).build(config.method, encoder).to(device)
    if not config.source.stream:
        # A stream is decoded as it is asked for, and kept nowhere.
        data = _placed(data, device, max_gb=config.source.device_gb)
    with watch("tokens"):
        source = image_text_batches(data, encoder, matches=matches, config=config)
    run = start_run(method, training, steps_per_epoch=source.steps_per_epoch)
    log = MetricsLog(output / METRICS)
    vectors = ImageTextVectors(data, encoder, precision=training.precision)
    miner = ImageTextMiner(vectors, data=data, matches=matches, mining=config.mining, watch=watch, log=log)
    dev = _dev_callback(data, vectors, matches, config, log=log, watch=watch, resume=resume)
    ended = train_to_the_end(
        run,
        source,
        vectors=vectors,
        remining=[Remine(miner, log)] if mines(training) else [],
        dev=dev,
        keep=config.evaluation.keep,
        metric=config.evaluation.metric,
        output=output,
        log=log,
        watch=watch,
        display=display,
        resume=resume,
    )
    _note_scale(encoder, method)
    return Trained(
        encoder=encoder,
        steps=run.step,
        kept_step=ended.kept_step,
        metrics=log.path,
        dev=ended.dev,
        rounds=tuple(miner.rounds),
        seconds=ended.seconds,
    )


def image_text_batches(
    data: ImageTextData, encoder: ImageTextEncoder, *, matches: Matches, config: ImageTextRunConfig
) -> ImageTextBatches:
    """The training source.

    Raises:
        InputError: the batch is larger than the number of train images, ranks do not divide it, or a caption
            has no token.
    """
    training, rows = config.training, data.splits["train"]
    if not 2 <= training.batch_size <= len(rows):
        raise InputError(
            f"training.batch_size {training.batch_size}; valid is 2 to {len(rows)}, the train images of "
            f"'{data.name}'"
        )
    if training.batch_size % num_ranks():
        raise InputError(f"training.batch_size {training.batch_size}: not a multiple of {num_ranks()} ranks")
    make_image = None
    if config.augmentation is not None:
        views = build_views(config.augmentation, size=encoder.size, mean=encoder.mean, std=encoder.std)
        make_image = views.first
    return ImageTextBatches(
        data,
        matches=matches,
        tokenize=encoder.tokenize,
        prepare=encoder.prepare,
        augment=make_image,
        batch_size=training.batch_size,
        device=encoder.device,
        num_negatives=training.num_negatives,
        mined=training.mined,
        edits=training.edits,
    )


def _note_scale(encoder: ImageTextEncoder, method: Method) -> None:
    """Tells the encoder what scale and bias its method learned: they are saved beside the weights."""
    assert isinstance(method, Clip), "the only method of images with texts"
    bias = None if method.bias is None else float(method.bias.value.detach())
    encoder.keep_scale(1 / float(method.temperature.scale().detach()), bias=bias)


def _placed(data: ImageTextData, device: torch.device, *, max_gb: float) -> ImageTextData:
    """The same data, its images on a GPU where they fit."""
    if device.type != "cuda":
        return data
    return replace(data, images=to_device(data.images, device, max_gb=max_gb))


def _dev_callback(
    data: ImageTextData,
    vectors: ImageTextVectors,
    matches: Matches,
    config: ImageTextRunConfig,
    *,
    log: MetricsLog,
    watch: Stopwatch,
    resume: bool,
) -> Evaluate | None:
    evaluation, seed = config.evaluation, config.training.seed
    if "dev" not in data.splits:
        if evaluation.probe is not None:
            raise InputError(
                f"evaluation.probe: '{data.name}' has no dev split, by which weights are kept; set "
                "source.dev_share"
            )
        return None
    tasks = ImageTextTasks.of(
        data,
        matches,
        split="dev",
        templates=evaluation.templates,
        max_images=evaluation.dev_images,
        seed=seed,
    )
    probe = None
    if evaluation.probe is not None:
        with watch("data"):
            probe = Probe(evaluation.probe, templates=evaluation.templates, seed=seed)
        if resume:
            probe.start = dev_at(log.path, 0).get(PROBE)

    def measure(run: Run) -> Mapping[str, float]:
        with watch("evaluate on dev"):
            found = means(tasks.measure(vectors.encoder, vectors.images, vectors.captions))
            if probe is None:
                return found
            return probe.guard(found, vectors.encoder, metric=evaluation.metric)

    keep = best_keeper(config.folder / BEST) if evaluation.keep == "best" else None
    return Evaluate(measure, log, metric=evaluation.metric if probe is None else GUARDED, keep_best=keep)

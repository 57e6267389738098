"""Runs of the fault benchmark: a case on a data set, looked at every few steps, and what it learned."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from fault_cases import Case
from mine_texts import Size, draw_data, make_model
from PIL import Image
from torch import Tensor, nn

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.health import measure_health
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.indexing import exact
from retrieval_cl.methods import load_method
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.runs.image_config import ImageEvaluationConfig
from retrieval_cl.runs.image_scores import Task, embed, knn_right
from retrieval_cl.runs.train_images import item_ids
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.image_views import ImageViews
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.sources.records import Qrels
from retrieval_cl.sources.text_pairs import TextPairs
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.leaks import CheckLeaks
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import HEALTH_ROWS
from retrieval_cl.training.run import Callback, Run, Source
from retrieval_cl.training.trainer import start_run, train
from retrieval_cl.training.watch import Watch

Score = tuple[float, int]
"""Share of right answers, and their number."""
SMALL = {"hidden": 256, "dim": 64}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "simclr": {"temperature": 0.2, "projector": SMALL},
    "moco": {"temperature": 0.2, "queue": 1024, "momentum": 0.99, "projector": SMALL},
    "byol": {"momentum": 0.97, "projector": SMALL, "predictor": {"hidden": 256}},
    "text": {},
}
TEXTS = Size(queries=3000, passages=3000, dim=64)
TEST_QUERIES = 500


@dataclass(frozen=True, eq=False)
class Setting:
    """What a case runs on: data, encoder, how long. `images`: None: warped digits; else an .npz of JPEGs."""

    name: str
    encoder: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    lr: float
    steps: int
    look_every: int = 25
    batch_size: int = 128
    num_images: int = 4000
    images: Path | None = None


@dataclass
class Outcome:
    """What one run came to.

    Attributes:
        case: its name.
        looks: the signals of every look.
        fault: the name, the step and the line of the first fault the monitor would have stopped for.
        leak: what the leak check said before the first step.
        diverged: the first step whose loss is no finite number.
        score: kNN accuracy or recall@10 at the end, over `asked` images or queries.
        seconds: wall time.
    """

    case: str
    looks: list[dict[str, Any]] = field(default_factory=list)
    fault: tuple[str, int, str] | None = None
    leak: str | None = None
    diverged: int | None = None
    score: float = math.nan
    asked: int = 1
    seconds: float = 0.0

    @property
    def error(self) -> float:
        """Standard error of the score."""
        return math.sqrt(self.score * (1 - self.score) / self.asked)


class Look(Callback):
    """Looks as the monitor does, but never stops the run: its end tells what the fault did."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome, self.watch = outcome, Watch()

    def on_round(self, run: Run) -> None:
        """Starts to watch."""
        self.watch.start(run)

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Looks where it is due, and keeps what was seen."""
        if self.outcome.diverged is None and not math.isfinite(float(loss)):
            self.outcome.diverged = run.step
        if run.step % run.config.health_every == 0:
            anchors, positives = (side[:HEALTH_ROWS] for side in run.method.sides(embeddings))
            health = measure_health(anchors, positives)
            fault = self.watch.look(run, health, loss=float(loss), anchors=anchors, positives=positives)
            if fault is not None and self.outcome.fault is None:
                self.outcome.fault = (fault.name, fault.step, str(fault))
            assert self.watch.last is not None
            self.outcome.looks.append(asdict(self.watch.last))


def run_case(case: Case, setting: Setting, *, log: Path) -> Outcome:
    """Trains to the end, whatever the looks say."""
    started, outcome = perf_counter(), Outcome(case.name)
    build = _text if case.base == "text" else _images
    encoder, source, score = build(case, setting)
    name = "dual_encoder" if case.base == "text" else case.base
    config = MethodConfig(name=name, **{**METHODS[case.base], **case.method})
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        method = load_method(name).build(config, encoder)
    case.change(method)
    training = TrainingConfig(
        seed=case.seed,
        batch_size=setting.batch_size,
        num_negatives=0,
        rounds=1,
        first_mined_round=1,
        steps=setting.steps,
        lr=setting.lr * case.lr_factor,
        health_every=setting.look_every,
        log_every=1000,
        precision="fp32",
    )
    source = case.source(source)
    run = start_run(method, training, steps_per_epoch=source.steps_per_epoch)
    try:
        CheckLeaks(source, MetricsLog(log)).on_round(run)
    except InputError as error:
        outcome.leak = str(error)
    train(run, source, callbacks=[Look(outcome)])
    (outcome.score, outcome.asked), outcome.seconds = score(), perf_counter() - started
    return outcome


def _images(case: Case, setting: Setting) -> tuple[nn.Module, Source, Callable[[], Score]]:
    data, groups = _image_data(setting)
    encoder = build_image_encoder(ImageEncoderConfig(**setting.encoder), seed=case.seed)
    augmentation = AugmentationConfig(**{**setting.augmentation, **case.augmentation})
    source = ImageViews(
        data.images,
        rows=data.splits["train"],
        groups=groups,
        augment=build_views(augmentation, size=encoder.size, mean=encoder.mean, std=encoder.std),
        batch_size=setting.batch_size,
        device=torch.device("cpu"),
    )
    return encoder, source, lambda: _knn(data, encoder)


def _knn(data: ImageData, encoder: ImageEncoder) -> Score:
    task = Task.of(data, split="test")
    assert task is not None
    try:
        found = embed(task, lambda images, rows: encoder.encode(images, rows=rows))
    except InputError:
        return 0.0, len(task.asked)  # a vector is no number
    right = knn_right(task, found, config=ImageEvaluationConfig(), device=torch.device("cpu"))
    return float(right.mean()), len(right)


@cache
def _image_data(setting: Setting) -> tuple[ImageData, np.ndarray]:
    if setting.images is None:
        data = load_images(ImageSourceConfig(kind="digits", warped=True))
    else:
        data = _packed(setting.images, setting.num_images)
    return data, item_ids(data)


def _packed(file: Path, count: int) -> ImageData:
    """The first images of an .npz of JPEGs with labels; every fourth is test."""
    with np.load(file) as packed:
        jpeg, offsets, labels = packed["jpeg"], packed["offsets"][: count + 1], packed["labels"][:count]
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB"))
            for start, stop in pairwise(offsets)
        ]
    )
    rows = np.arange(count)
    splits = {"train": rows[rows % 4 != 0], "test": rows[rows % 4 == 0]}
    classes = tuple(str(name) for name in np.unique(labels))
    return ImageData(
        file.stem, ArrayImages(pixels), [str(row) for row in rows], labels.astype(np.int64), classes, splits
    )


def _text(case: Case, setting: Setting) -> tuple[nn.Module, Source, Callable[[], Score]]:
    data = draw_data(TEXTS)
    encoder = make_model(data, TEXTS)
    queries = encoder.tokenize(data.queries, kind="query")
    passages = encoder.tokenize(data.passages, kind="passage")
    rows, values = data.positives.rows, data.positives.values
    kept = rows >= TEST_QUERIES
    source = TextPairs(
        queries,
        passages,
        qrels=Qrels(rows[kept], values[kept], np.ones(int(kept.sum()), dtype=np.int64)),
        groups=np.arange(len(data.passages)),
        query_groups=np.arange(len(data.queries)),
        batch_size=setting.batch_size,
        num_negatives=0,
    )
    return encoder, source, lambda: _recall(encoder, queries.take(np.arange(TEST_QUERIES)), passages)


def _recall(encoder: TextEncoder, queries: Ragged, passages: Ragged) -> Score:
    """Recall@10 of the test queries; passage i is the answer to query i."""
    try:
        vectors = (encoder.encode(queries, kind="query"), encoder.encode(passages, kind="passage"))
    except InputError:
        return 0.0, len(queries)
    found = exact.search(*vectors, k=10).rows
    return float((found == np.arange(len(found))[:, None]).any(axis=1).mean()), len(found)

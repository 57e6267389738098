"""Evaluates a model of images on a split: kNN, a linear classifier and retrieval, beside raw pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from retrieval_cl.config import ImageRunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.images import Images
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.load_image import load_image_encoder
from retrieval_cl.evaluation.metrics import RECALL_CUTS
from retrieval_cl.evaluation.results import SystemScores, write_per_query
from retrieval_cl.evaluation.trec import write_run
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.recall import without_own
from retrieval_cl.runs.evaluate import PER_QUERY, RESULTS, Say, name_models
from retrieval_cl.runs.image_board import RETRIEVAL, ImageBoard, compare_models, retrieved
from retrieval_cl.runs.image_results import KNN, LINEAR
from retrieval_cl.runs.image_scores import (
    Embedded,
    Encode,
    Task,
    describe_protocol,
    embed,
    knn_right,
    linear_right,
    pixel_vectors,
    tasks_of,
)
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.load import load_images

RAW_PIXELS = "raw pixels"


@final
@dataclass(frozen=True, eq=False)
class ImagesEvaluated:
    """What an evaluation leaves: the models, and the folder with results.json and per_query.jsonl."""

    board: ImageBoard
    folder: Path

    def text(self) -> str:
        """The outcome, for a terminal."""
        return self.board.text()


def evaluate_images(
    config: ImageRunConfig,
    model: Model,
    *,
    against: Model | None = None,
    output: Path,
    write_trec: bool = False,
    say: Say = lambda line: None,
) -> ImagesEvaluated:
    """Measures the features of a model on the split of `config.evaluation`, beside raw pixels.

    Args:
        config: its sections source and evaluation are read, and training.seed, for the linear classifier.
        model: what is evaluated.
        against: a second model, which the first is tested against.
        output: folder for results.json and per_query.jsonl.
        write_trec: also write what each system found as TREC runs.
        say: gets a line now and then.

    Raises:
        InputError: a model cannot be loaded or is one of texts, or the data is missing, broken, without that
            split or without two classes.
    """
    watch = Stopwatch()
    models = name_models(model, against, taken=(RAW_PIXELS,))
    ways: dict[str, Encode] = {RAW_PIXELS: pixel_vectors}
    ways |= {name: _encode(_load(one)) for name, one in models.items()}
    with watch("data"):
        data = load_images(config.source)
        tasks = _tasks(config, data)
    say(f"{data.name}: {len(tasks[''].asked):,} images of split '{config.evaluation.split}'")
    ids = [data.ids[row] for row in tasks[""].asked.tolist()]
    systems = []
    for name, encode in ways.items():
        with watch(name):
            embedded = {ending: embed(task, encode) for ending, task in tasks.items()}
            found = {ending: _others(one.asked) for ending, one in embedded.items()}
            linear = config.evaluation.linear and name != RAW_PIXELS
            systems.append(SystemScores(name, _measure(tasks, embedded, found, config=config, linear=linear)))
        for ending, hits in found.items() if write_trec else ():
            tag = f"{name}{ending}".replace(" ", "_")
            write_run(output / f"{tag}.trec", hits, query_ids=ids, passage_ids=ids, tag=tag)
    first, *others = models
    with watch("tests"):
        board = compare_models(
            systems,
            pairs=[(first, RAW_PIXELS), *((first, other) for other in others)],
            protocol={
                **describe_protocol(config.evaluation, tasks[""]),
                "retrieval": RETRIEVAL,
                "intervals": "95 %; Wilson for shares of images, bootstrap for recall and ndcg",
            },
            endings=list(tasks),
        )
    write_per_query(output / PER_QUERY, systems, query_ids=ids)
    facts = {
        "data": data.name,
        "split": config.evaluation.split,
        "num_images": len(ids),
        "models": {name: one.path for name, one in models.items()},
        **board.to_json(),
        "seconds": watch.total,
        "seconds_by_stage": watch.seconds,
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
    }
    write_json(output / RESULTS, facts)
    return ImagesEvaluated(board, output)


def _load(model: Model) -> ImageEncoder:
    if model.embeds != "images":
        raise InputError(f"--against {model.path}: a model of texts, the first is one of images")
    return load_image_encoder(Path(model.path)).to(_device())


def _encode(encoder: ImageEncoder) -> Encode:
    def encode(images: Images, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R F"]:
        return encoder.encode(images, rows=rows)

    return encode


def _tasks(config: ImageRunConfig, data: ImageData) -> dict[str, Task]:
    found = tasks_of(config, data)
    if not found:
        raise InputError(
            f"'{data.name}': no two classes in splits train and '{config.evaluation.split}', by which "
            "features could be measured"
        )
    return found


def _others(vectors: Float32[np.ndarray, "Q F"]) -> Hits:
    """The images nearest to each, without itself."""
    k = max(RECALL_CUTS)
    own = np.arange(len(vectors), dtype=np.int64)
    return without_own(exact.search(vectors, vectors, k=k + 1, device=_device()), own, k=k)


def _measure(
    tasks: Mapping[str, Task],
    embedded: Mapping[str, Embedded],
    found: Mapping[str, Hits],
    *,
    config: ImageRunConfig,
    linear: bool,
) -> dict[str, Float64[np.ndarray, " Q"]]:
    """Metric with the ending of its set -> value of each image."""
    values: dict[str, Float64[np.ndarray, " Q"]] = {}
    for ending, task in tasks.items():
        vectors = embedded[ending]
        right = knn_right(task, vectors, config=config.evaluation, device=_device())
        values[KNN + ending] = right.astype(np.float64)
        if linear:
            right = linear_right(task, vectors, seed=config.training.seed)
            values[LINEAR + ending] = right.astype(np.float64)
        metrics = retrieved(task.labels[task.asked], found[ending])
        values |= {metric + ending: of_images for metric, of_images in metrics.items()}
    return values


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

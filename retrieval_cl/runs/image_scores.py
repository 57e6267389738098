"""What features are worth: nearest neighbours and a linear classifier, with what they have to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from retrieval_cl.config import ImageRunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.images import Images
from retrieval_cl.evaluation.knn import KnnProtocol, vote
from retrieval_cl.evaluation.linear_probe import linear_probe
from retrieval_cl.indexing import exact
from retrieval_cl.runs.image_config import ImageEvaluationConfig
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.load import load_images

Encode = Callable[[Images, Int64[np.ndarray, " R"]], Float32[np.ndarray, "R F"]]
"""Unit rows of the given images."""
PIXEL_BATCH = 1024
# Larger images are shrunk to that side before their pixels are compared: a million photographs of 224 x 224
# would take 600 GB as they are, and a cosine of pixels sees what is coarse.
PIXEL_SIDE = 32
# Ending of a number's name -> whether the digits it is measured on are warped.
TWINS = {"": False, "_warped": True}


@final
@dataclass(frozen=True, eq=False)
class Task:
    """Images of one set whose class is known, and those that are classified by them.

    Attributes:
        images: what the rows number.
        bank: rows that vote or are learned from.
        asked: rows that are classified.
        labels: class of every row; -1 where it is not known, which is in neither.
        num_classes: how many there are.
    """

    images: Images
    bank: Int64[np.ndarray, " B"]
    asked: Int64[np.ndarray, " Q"]
    labels: Int64[np.ndarray, " N"]
    num_classes: int

    @classmethod
    def of(cls, data: ImageData, *, split: str) -> Task | None:
        """Split `split` classified by split train; None where there are no two classes to tell apart.

        Raises:
            InputError: there is no such split.
        """
        bank, asked = (require_split(data, name) for name in ("train", split))
        if data.labels is None:
            return None
        bank, asked = (rows[data.labels[rows] >= 0] for rows in (bank, asked))
        return cls._of_rows(data, data.labels, bank=bank, asked=asked)

    @classmethod
    def of_dev(cls, data: ImageData, *, max_images: int | None, seed: int) -> Task | None:
        """Split dev classified by train; where there is none, a tenth of train by the rest.

        Labels are no part of training, so images of train may be asked: it tells how well others of the same
        class lie near, and nothing of test is looked at.
        """
        if data.labels is None:
            return None
        known = data.labels >= 0
        train = data.splits["train"][known[data.splits["train"]]]
        order = np.random.default_rng([seed, 7]).permutation(len(train))
        if "dev" in data.splits:
            asked, bank = data.splits["dev"][known[data.splits["dev"]]], train
            asked = asked[np.random.default_rng([seed, 8]).permutation(len(asked))]
        else:
            asked, bank = train[order[: len(train) // 10]], np.sort(train[order[len(train) // 10 :]])
        return cls._of_rows(data, data.labels, bank=bank, asked=np.sort(asked[:max_images]))

    @classmethod
    def _of_rows(
        cls,
        data: ImageData,
        labels: Int64[np.ndarray, " N"],
        *,
        bank: Int64[np.ndarray, " B"],
        asked: Int64[np.ndarray, " Q"],
    ) -> Task | None:
        if not len(asked) or len(np.unique(labels[bank])) < 2:
            return None
        return cls(data.images, bank, asked, labels, len(data.classes))


def require_split(data: ImageData, name: str) -> Int64[np.ndarray, " n"]:
    """The rows of a split. Raises InputError where there is none of that name."""
    if name not in data.splits:
        raise InputError(f"'{data.name}' has no split '{name}'; it has {', '.join(data.splits)}")
    return data.splits[name]


def tasks_of(config: ImageRunConfig, data: ImageData) -> dict[str, Task]:
    """Ending of the numbers' names -> what is classified; empty where there are no classes.

    Digits are measured as they are and warped, whichever of the two `data` is.

    Raises:
        InputError: there is no such split.
    """
    split = config.evaluation.split
    if config.source.kind != "digits":
        task = Task.of(data, split=split)
        return {} if task is None else {"": task}
    found = {}
    for ending, warped in TWINS.items():
        own = warped == config.source.warped
        twin = data if own else load_images(config.source.model_copy(update={"warped": warped}))
        found[ending] = Task.of(twin, split=split)
    return {ending: task for ending, task in found.items() if task is not None}


@final
@dataclass(frozen=True, eq=False)
class Embedded:
    """Unit rows of a task's images."""

    bank: Float32[np.ndarray, "B F"]
    asked: Float32[np.ndarray, "Q F"]


def embed(task: Task, encode: Encode) -> Embedded:
    """Vectors of the bank and of the asked images."""
    vectors = encode(task.images, np.concatenate([task.bank, task.asked]))
    return Embedded(vectors[: len(task.bank)], vectors[len(task.bank) :])


def knn_right(
    task: Task, embedded: Embedded, *, config: ImageEvaluationConfig, device: torch.device
) -> Bool[np.ndarray, " Q"]:
    """Whether the nearest images of the bank name the right class of each image."""
    return named_by(task, nearest(task, embedded, config=config, device=device), config=config)


def nearest(task: Task, embedded: Embedded, *, config: ImageEvaluationConfig, device: torch.device) -> Hits:
    """The images of the bank that vote on each image."""
    return exact.search(embedded.asked, embedded.bank, k=min(config.knn_k, len(task.bank)), device=device)


def named_by(task: Task, hits: Hits, *, config: ImageEvaluationConfig) -> Bool[np.ndarray, " Q"]:
    """Whether the votes of the hits name the right class of each image."""
    voted = vote(
        hits, task.labels[task.bank], num_classes=task.num_classes, temperature=config.knn_temperature
    )
    right: Bool[np.ndarray, " Q"] = voted == task.labels[task.asked]
    return right


def found_first(task: Task, hits: Hits) -> Bool[np.ndarray, " Q"]:
    """Whether the nearest image is of the class: success@1, which papers on images call recall@1."""
    first: Bool[np.ndarray, " Q"] = task.labels[task.bank][hits.rows[:, 0]] == task.labels[task.asked]
    return first


def linear_right(task: Task, embedded: Embedded, *, seed: int) -> Bool[np.ndarray, " Q"]:
    """Whether a linear classifier of the bank's features names the right class of each image."""
    named = linear_probe(embedded.bank, task.labels[task.bank], embedded.asked, seed=seed)
    right: Bool[np.ndarray, " Q"] = named == task.labels[task.asked]
    return right


def pixel_vectors(images: Images, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R F"]:
    """The pixels themselves as unit rows, at most `PIXEL_SIDE` a side: what features have to beat."""
    side = _pixel_sides(images)
    parts = [_shrunk(images.take(part).float(), side).flatten(1).cpu() for part in _parts(rows)]
    # A black image has no direction; a zero row finds its neighbours by row number, as any other would.
    return functional.normalize(torch.cat(parts), dim=1).numpy()


def describe_protocol(config: ImageEvaluationConfig, task: Task) -> dict[str, str]:
    """How the numbers were measured, as JSON values."""
    bank = f"{len(task.bank):,} images of split train, evaluation transform, fixed weights"
    return {
        "raw pixels": f"their cosine, of images {_told(task.images)}",
        "knn": str(KnnProtocol(config.knn_k, config.knn_temperature, bank)),
        "linear": "logistic regression on standardised frozen features, penalty chosen within the bank",
        "classified": f"{len(task.asked):,} images of split {config.split}",
        "intervals": "95 %, Wilson",
    }


def _pixel_sides(images: Images) -> tuple[int, int]:
    height, width = images.size
    return min(height, PIXEL_SIDE), min(width, PIXEL_SIDE)


def _told(images: Images) -> str:
    height, width = _pixel_sides(images)
    return "as they are" if (height, width) == images.size else f"shrunk to {height} x {width}"


def _shrunk(pixels: Float[Tensor, "R 3 H W"], size: tuple[int, int]) -> Float[Tensor, "R 3 h w"]:
    if pixels.shape[2:] == size:
        return pixels
    return functional.interpolate(pixels, size, mode="bilinear", antialias=True)


def _parts(rows: Int64[np.ndarray, " R"]) -> list[Int64[np.ndarray, " r"]]:
    return [rows[start : start + PIXEL_BATCH] for start in range(0, len(rows), PIXEL_BATCH)]

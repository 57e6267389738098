"""Images with their nearest neighbours, as rows of a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.core.images import Images
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.thumbnails import to_jpeg
from retrieval_cl.reporting.contact_sheet import Tile
from retrieval_cl.runs.image_scores import Embedded, Task, require_split
from retrieval_cl.sources.images.data import ImageData

NUM_SHOWN, NUM_HITS = 8, 8
_SEED = 11


def task_without_classes(data: ImageData, *, split: str) -> Task:
    """A few images of the split, of train where there is none, and train without them as their bank."""
    train = require_split(data, "train")
    rows = data.splits.get(split, train)
    asked = np.sort(np.random.default_rng(_SEED).permutation(rows)[:NUM_SHOWN])
    labels = np.full(len(data.images), -1, dtype=np.int64)
    return Task(data.images, np.setdiff1d(train, asked), asked, labels, 0)


def neighbour_rows(
    task: Task, embedded: Embedded, *, classes: Sequence[str], device: torch.device
) -> list[list[Tile]]:
    """A seeded sample of the asked images, of as many classes as can be, each before its nearest images."""
    if not len(task.bank):
        return []
    places = _sample(task.labels[task.asked])
    hits = exact.search(embedded.asked[places], embedded.bank, k=NUM_HITS, device=device)
    rows = []
    for place, found, scores in zip(places.tolist(), hits.rows, hits.scores.tolist(), strict=True):
        own = int(task.asked[place])
        label = int(task.labels[own])
        tiles = [Tile(picture_of(task.images, own), classes[label] if label >= 0 else "")]
        for row, score in zip(task.bank[found[found >= 0]].tolist(), scores, strict=False):
            theirs = int(task.labels[row])
            caption = f"{score:.2f} {classes[theirs] if theirs >= 0 else ''}".rstrip()
            is_right = theirs == label if label >= 0 and theirs >= 0 else None
            tiles.append(Tile(picture_of(task.images, row), caption, is_right))
        rows.append(tiles)
    return rows


def picture_of(images: Images, row: int) -> bytes:
    """A small JPEG file of one image."""
    pixels = images.take(np.array([row], dtype=np.int64))[0].permute(1, 2, 0).cpu().numpy()
    return to_jpeg(np.ascontiguousarray(pixels))


def _sample(labels: Int64[np.ndarray, " Q"]) -> Int64[np.ndarray, " n"]:
    """Places of a few images: one of each class first, then others; in the order of their classes."""
    order = np.random.default_rng(_SEED).permutation(len(labels))
    first = np.zeros(len(labels), dtype=bool)
    first[np.unique(labels[order], return_index=True)[1]] = True
    chosen = np.concatenate([order[first], order[~first]])[:NUM_SHOWN]
    return chosen[np.argsort(labels[chosen], kind="stable")]

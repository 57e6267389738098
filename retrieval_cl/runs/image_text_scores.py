"""What an image-text model is worth: retrieval in both directions, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.evaluation.cross_modal import evaluate_cross_modal
from retrieval_cl.evaluation.zero_shot import DEFAULT_TEMPLATES, zero_shot_right, zero_shot_weights
from retrieval_cl.runs.image_text_config import (
    CUTS,
    DIRECTIONS,
    IMAGE_TO_TEXT,
    METRICS,
    TEXT_TO_IMAGE,
    ZERO_SHOT,
)
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import Matches

Values = Mapping[str, Float64[np.ndarray, " Q"]]
"""Metric -> a value a query."""
Rows = Int64[np.ndarray, " R"]
EncodeRows = Callable[[Rows], Float32[np.ndarray, "R D"]]
"""Unit rows of images, or of captions, by their rows."""


@final
@dataclass(frozen=True, eq=False)
class CrossModalTask:
    """Images of one split and their distinct captions: each asks for the other.

    Attributes:
        images: image rows.
        captions: caption rows; of captions with equal text the first stands for all.
        captions_of: place of an image -> places of the captions that match it.
        images_of: place of a caption -> places of the images that match it.
    """

    images: Int64[np.ndarray, " N"]
    captions: Int64[np.ndarray, " T"]
    captions_of: Ragged
    images_of: Ragged

    @classmethod
    def of(
        cls,
        data: ImageTextData,
        matches: Matches,
        *,
        split: str,
        max_images: int | None = None,
        seed: int = 0,
    ) -> CrossModalTask:
        """The images of a split, or a seeded sample of them.

        Raises:
            InputError: there is no such split.
        """
        images = require_split(data, split)
        if max_images is not None and len(images) > max_images:
            images = np.sort(np.random.default_rng([seed, 13]).permutation(images)[:max_images])
        captions = data.captions_of(images)
        items, first = np.unique(matches.caption_items[captions], return_index=True)
        known = matches.known.take(images)
        place = np.minimum(np.searchsorted(items, known.values), len(items) - 1)
        there = items[place] == known.values
        image_places, caption_places = known.rows[there], place[there].astype(np.int64)
        return cls(
            images,
            captions[first],
            Ragged.from_pairs(image_places, caption_places, len(images)),
            Ragged.from_pairs(caption_places, image_places, len(items)),
        )

    def measure(self, encode_images: EncodeRows, encode_captions: EncodeRows) -> dict[str, Values]:
        """Direction -> metric -> a value a query."""
        images, captions = encode_images(self.images), encode_captions(self.captions)
        return {
            TEXT_TO_IMAGE: evaluate_cross_modal(captions, images, self.images_of, cuts=CUTS),
            IMAGE_TO_TEXT: evaluate_cross_modal(images, captions, self.captions_of, cuts=CUTS),
        }


@final
@dataclass(frozen=True, eq=False)
class ZeroShotTask:
    """Images whose class is known, and the classes by name.

    Attributes:
        rows: image rows.
        labels: class of each, a place in `classes`.
        classes: their names.
        templates: prompts for a name.
    """

    rows: Int64[np.ndarray, " N"]
    labels: Int64[np.ndarray, " N"]
    classes: tuple[str, ...]
    templates: Sequence[str]

    @classmethod
    def of(
        cls,
        labels: Int64[np.ndarray, " N"] | None,
        classes: tuple[str, ...],
        *,
        rows: Int64[np.ndarray, " R"],
        templates: Sequence[str] | None,
    ) -> ZeroShotTask | None:
        """Those of the given images whose class is known; None where there are no two classes."""
        if labels is None or len(classes) < 2:
            return None
        rows = rows[labels[rows] >= 0]
        if not len(rows):
            return None
        return cls(rows, labels[rows], classes, templates or DEFAULT_TEMPLATES)

    def right(
        self, encode_images: EncodeRows, embed: Callable[[Sequence[str]], Float32[np.ndarray, "T D"]]
    ) -> Float64[np.ndarray, " N"]:
        """1 for each image whose class is named right, else 0."""
        weights = zero_shot_weights(embed, self.classes, self.templates)
        return zero_shot_right(encode_images(self.rows), weights, self.labels).astype(np.float64)


@final
@dataclass(frozen=True, eq=False)
class ImageTextTasks:
    """What is measured on a split: retrieval, and classification where classes are known."""

    cross_modal: CrossModalTask
    zero_shot: ZeroShotTask | None

    @classmethod
    def of(
        cls,
        data: ImageTextData,
        matches: Matches,
        *,
        split: str,
        templates: Sequence[str] | None,
        max_images: int | None = None,
        seed: int = 0,
    ) -> ImageTextTasks:
        """Raises InputError where there is no such split."""
        task = CrossModalTask.of(data, matches, split=split, max_images=max_images, seed=seed)
        zero_shot = ZeroShotTask.of(data.labels, data.classes, rows=task.images, templates=templates)
        return cls(task, zero_shot)

    def measure(
        self, encoder: ImageTextEncoder, encode_images: EncodeRows, encode_captions: EncodeRows
    ) -> dict[str, Values]:
        """Direction, or the name of the zero-shot accuracy, -> metric -> a value a query."""
        found = self.cross_modal.measure(encode_images, encode_captions)
        if self.zero_shot is not None:
            right = self.zero_shot.right(encode_images, encoder.encode_texts)
            found[ZERO_SHOT] = {ZERO_SHOT: right}
        return found


def means(found: Mapping[str, Values]) -> dict[str, float]:
    """Flat names and means, as dev has them: `text_to_image_success@1`, ..., and the mean of both ways."""
    flat = {
        f"{part}_{metric}" if part in DIRECTIONS else metric: float(values.mean())
        for part, metrics in found.items()
        for metric, values in metrics.items()
    }
    both = {
        f"mean_{metric}": float(np.mean([flat[f"{direction}_{metric}"] for direction in DIRECTIONS]))
        for metric in METRICS
    }
    return flat | both


def require_split(data: ImageTextData, name: str) -> Int64[np.ndarray, " n"]:
    """The image rows of a split. Raises InputError where there is none of that name."""
    if name not in data.splits:
        raise InputError(f"'{data.name}' has no split '{name}'; it has {', '.join(data.splits)}")
    return data.splits[name]

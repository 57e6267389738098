"""Zero-shot classification: the class whose prompts are nearest to an image (CLIP, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.evaluation.cross_modal import blocks, cosines, require_finite

DEFAULT_TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a good photo of a {}.",
    "a {}.",
    "{}",
)


def zero_shot_weights(
    embed: Callable[[Sequence[str]], Float32[np.ndarray, "T D"]],
    classes: Sequence[str],
    templates: Sequence[str],
) -> Float32[np.ndarray, "K D"]:
    """A unit row a class: the mean of the unit rows of its prompts (section 3.1.4, prompt ensembling).

    Prompts of which the model knows no token are rows of zeros and add nothing; a class that has no others
    stays a row of zeros.

    Args:
        embed: what embeds texts.
        classes: names, each once.
        templates: prompts, in which {} stands for the name.

    Raises:
        InputError: there is no template, one lacks {}, or a class is named twice.
    """
    if not templates or not all("{}" in template for template in templates):
        raise InputError(f"templates {list(templates)}: give at least one, each with {{}} for the class")
    if twice := [name for number, name in enumerate(classes) if name in classes[:number]]:
        raise InputError(f"class '{twice[0]}' is named twice: nothing can tell the two apart")
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    vectors = _unit(embed(prompts).astype(np.float64))
    means = _unit(vectors.reshape(len(classes), len(templates), -1).mean(axis=1))
    return np.asarray(means, dtype=np.float32)


def zero_shot_right(
    vectors: Float32[np.ndarray, "N D"], weights: Float32[np.ndarray, "K D"], labels: Int64[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Whether each image is nearer to its class than to any other; as near is not enough.

    Args:
        vectors: unit rows of images.
        weights: of classes, as `zero_shot_weights` gives them.
        labels: class of each image, 0 to K - 1.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    assert labels.min(initial=0) >= 0 and labels.max(initial=-1) < len(weights)
    require_finite(vectors, name="images")
    require_finite(weights, name="classes")
    right = np.empty(len(vectors), dtype=bool)
    for rows in blocks(len(vectors), width=len(weights)):
        scores = cosines(vectors[rows.start : rows.stop], weights)
        own = labels[rows.start : rows.stop, None]
        wanted = np.take_along_axis(scores, own, axis=1)
        np.put_along_axis(scores, own, -np.inf, axis=1)
        right[rows.start : rows.stop] = wanted[:, 0] > scores.max(axis=1)
    return right


def _unit(rows: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    """The rows over their lengths; rows of zeros stay as they are."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)

"""A guard while a pretrained image-text model is fine-tuned: zero-shot accuracy on a probe set must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.runs.image_text_config import ProbeConfig
from retrieval_cl.runs.image_text_scores import ZeroShotTask
from retrieval_cl.sources.images.load import load_images

PROBE = "probe_zero_shot_accuracy"
GUARDED = "guarded"
"""Name of the dev metric by which weights are kept: that of the config, and -1 where the probe fell."""


@final
class Probe:
    """Labelled images, and how well the model named their classes before its first step."""

    def __init__(self, config: ProbeConfig, *, templates: tuple[str, ...] | None, seed: int) -> None:
        """Loads the images.

        Raises:
            InputError: they cannot be loaded, there is no such split, or it has no two classes.
        """
        data = load_images(config.source)
        if config.split not in data.splits:
            raise InputError(
                f"evaluation.probe: '{data.name}' has no split '{config.split}'; it has "
                f"{', '.join(data.splits)}"
            )
        rows = data.splits[config.split]
        if config.max_images is not None and len(rows) > config.max_images:
            rows = np.sort(np.random.default_rng([seed, 17]).permutation(rows)[: config.max_images])
        task = ZeroShotTask.of(data.labels, data.classes, rows=rows, templates=templates)
        if task is None:
            raise InputError(
                f"evaluation.probe: split '{config.split}' of '{data.name}' has no images of two classes"
            )
        self._images, self._task, self._max_drop = data.images, task, config.max_drop
        self.start: float | None = None

    def measure(self, encoder: ImageTextEncoder) -> float:
        """Share of the probe's images whose class is named right by these weights."""
        right = self._task.right(
            lambda rows: encoder.encode_images(self._images, rows=rows), encoder.encode_texts
        )
        return float(right.mean())

    def guard(self, dev: Mapping[str, float], encoder: ImageTextEncoder, *, metric: str) -> dict[str, float]:
        """The dev metrics with the probe's; `GUARDED` is `metric`, or -1 where too much was lost.

        The first call is that before the first step; a resumed run sets `start` from its metrics.

        Raises:
            InputError: `metric` was not measured.
        """
        if metric not in dev:
            raise InputError(f"evaluation.metric '{metric}': not measured; valid: {', '.join(sorted(dev))}")
        accuracy = self.measure(encoder)
        if self.start is None:
            self.start = accuracy
        holds = accuracy >= self.start - self._max_drop
        return {**dev, PROBE: accuracy, GUARDED: dev[metric] if holds else -1.0}

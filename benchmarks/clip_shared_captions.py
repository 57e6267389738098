"""CLIP on images that share captions, with what is known to match and without, at equal steps; no download.

    OMP_NUM_THREADS=1 PYTHONPATH=. python3 benchmarks/clip_shared_captions.py [--steps 60] [--seeds 3]
        [--captions class] [--objective sigmoid] [--json FILE]

Warped digits of scikit-learn with captions that many share, batches of 512; arms share seeds, first weights
and batches.

| arm | other texts in the batch that match an image |
|---|---|
| left out | are neither positives nor negatives (positives: target) |
| positives | are further positives (positives: mean; sigmoid: sum) |
| ignored | are negatives: every row has an id of its own, as in trainers that know no ids |

| captions | |
|---|---|
| class | one a class: all images share ten |
| several | four an image, 80 in all: one a class, one a class and weight of strokes, in two wordings |

`ours` is an arm's value on test images, `peer` that of the arm that ignores ids, a row for each seed and one
of the means. image_to_text: the best of all captions is right. text_to_image: the best of all images is
right; and the share of a caption's images that are among the first 50, where a class has about 54.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from side_by_side import Row, compare_amounts, machine, parse, report

from retrieval_cl.core.views import Batch
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
from retrieval_cl.encoders.load_image_text import build_image_text_encoder
from retrieval_cl.evaluation.cross_modal import evaluate_cross_modal
from retrieval_cl.methods.clip import Clip
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.runs.image_text_scores import CrossModalTask
from retrieval_cl.sources.image_text.batches import ImageTextBatches
from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.load import load_image_text
from retrieval_cl.sources.image_text.relations import Matches, find_matches
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.run import Source
from retrieval_cl.training.trainer import start_run, train

ENCODER = {
    "dim": 64,
    "image": {"kind": "convnet", "size": 8, "depths": [1, 1], "width": 32},
    "text": {"kind": "static", "dim": 64, "init": "random", "vocab_size": 200},
}
BATCH_SIZE, CUT = 512, 50
CAPTIONS = ("class", "several")
METRICS = ("image_to_text success@1", "text_to_image success@1", f"text_to_image recall@{CUT}")


@dataclass(frozen=True, eq=False)
class OwnIds:
    """A source whose rows all have ids of their own: nothing but the text beside an image matches it."""

    source: Source

    @property
    def steps_per_epoch(self) -> int:
        """Of the source."""
        return self.source.steps_per_epoch

    def batches(self, negatives: Any, **place: Any) -> Iterator[Batch]:
        """Its batches, under other ids."""
        return (own_ids(batch) for batch in self.source.batches(negatives, **place))


def own_ids(batch: Batch) -> Batch:
    """The batch, row i of images and texts being item i."""
    ids = torch.arange(len(batch.known))
    views = {kind: replace(view, ids=ids) for kind, view in batch.views.items()}
    return Batch(views, ids[:, None])


ARMS: dict[str, tuple[str, Callable[[Source], Source]]] = {
    "left out": ("target", lambda source: source),
    "positives": ("mean", lambda source: source),
    "ignored": ("target", OwnIds),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all arms; returns the exit code."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="of each arm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--captions", action="append", choices=CAPTIONS, help="may be repeated")
    parser.add_argument("--objective", choices=("info_nce", "sigmoid"), default="info_nce")
    given = parse(parser, arguments)
    steps, seeds = (2, 1) if given.quick else (given.steps, given.seeds)
    print(machine())
    rows = []
    for captions in given.captions or CAPTIONS:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
        for seed in range(seeds):
            for name in ARMS:
                value = measure_arm(
                    name, captions=captions, objective=given.objective, seed=seed, steps=steps
                )
                found[name].append(value)
                print(
                    f"{given.objective}, {captions} captions, seed {seed}, {name}: {found[name][-1]}",
                    flush=True,
                )
        rows += compare_arms(found, what=f"{given.objective}, {captions} captions", steps=steps)
    report(rows, given)
    return 0


def compare_arms(found: dict[str, list[dict[str, float]]], *, what: str, steps: int) -> list[Row]:
    """Rows of each arm that knows ids beside the one that does not: a metric, seed by seed and their mean."""
    rows = []
    for name in ("left out", "positives"):
        for metric in METRICS:
            line = f"{what}, {metric}, {name} beside ignored, {steps} steps"
            ours, peer = ([values[metric] for values in found[arm]] for arm in (name, "ignored"))
            rows += [
                compare_amounts(f"{line}, seed {seed}", a, b, unit="share")
                for seed, (a, b) in enumerate(zip(ours, peer, strict=True))
            ]
            rows.append(compare_amounts(f"{line}, mean", mean(ours), mean(peer), unit="share"))
    return rows


def measure_arm(name: str, *, captions: str, objective: str, seed: int, steps: int) -> dict[str, float]:
    """Trains an arm; metric -> value on the test images."""
    data = load_image_text(ImageTextSourceConfig(kind="caption_digits", digit_captions=captions, warped=True))
    matches = find_matches(data)
    train_captions = [data.captions[row] for row in data.captions_of(data.splits["train"]).tolist()]
    encoder = build_image_text_encoder(
        ImageTextEncoderConfig.model_validate(ENCODER), train_captions=train_captions, seed=seed
    )
    positives, wrap = ARMS[name]
    if objective == "sigmoid" and positives == "mean":
        positives = "sum"
    settings = {"name": "clip", "objective": objective, "positives": positives}
    method = Clip.build(MethodConfig.model_validate(settings), encoder)
    source = ImageTextBatches(
        data,
        matches=matches,
        tokenize=encoder.tokenize,
        prepare=encoder.prepare,
        augment=None,
        batch_size=BATCH_SIZE,
        device=torch.device("cpu"),
    )
    config = TrainingConfig(
        batch_size=BATCH_SIZE, steps=steps, rounds=1, num_negatives=0, lr=0.003, seed=seed, precision="fp32"
    )
    train(start_run(method, config, steps_per_epoch=source.steps_per_epoch), wrap(source))
    return measure(encoder, data, matches)


def measure(encoder: ImageTextEncoder, data: ImageTextData, matches: Matches) -> dict[str, float]:
    """Metric -> mean over the test images, or over their distinct captions."""
    task = CrossModalTask.of(data, matches, split="test")
    images = encoder.encode_images(data.images, rows=task.images)
    texts = encoder.encode_texts([data.captions[row] for row in task.captions.tolist()])
    there = evaluate_cross_modal(images, texts, task.captions_of, cuts=(1,))
    back = evaluate_cross_modal(texts, images, task.images_of, cuts=(1, CUT))
    found = {f"image_to_text {key}": values for key, values in there.items()}
    found |= {f"text_to_image {key}": values for key, values in back.items()}
    return {metric: round(float(found[metric].mean()), 4) for metric in METRICS}


if __name__ == "__main__":
    sys.exit(main())

"""kNN accuracy of SimCLR with and without mined negatives, at equal steps, on warped digits; no download.

    OMP_NUM_THREADS=1 PYTHONPATH=. python3 benchmarks/image_mining.py [--steps 150] [--seeds 3] [--json FILE]

From configs/simclr_digits.yaml. Three arms share seeds, first weights, order and views of images:

| arm | negatives beside both views of the batch |
|---|---|
| without | none |
| random | two random images for each, from the second half of the steps on |
| mined | two of ranks 10 to 50 by the current weights for each, mined twice, from the same step on |

`ours` is an arm's accuracy (k = 10, cosine, test images by train images), `peer` that of the arm it is
compared with, a row for each seed and one of the means. Mined images cost passes of their own: at equal steps
the arms with negatives see twice as many images in the steps that have them.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from side_by_side import Row, compare_amounts, machine, parse, report

from retrieval_cl.config import ImageRunConfig, check_training, load_image_config
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.runs.image_scores import Task, embed, knn_right
from retrieval_cl.runs.self_supervised import train_on_images
from retrieval_cl.sources.images.copies import find_copies
from retrieval_cl.sources.images.load import load_images

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "simclr_digits.yaml"
NEGATIVES = 2
# Of four rounds the last two have a table each; so many in all arms.
ROUNDS = ("training.rounds=4", "training.first_mined_round=2")
WINDOW = ("mining.rank_min=10", "mining.rank_max=50", "mining.depth=50", "mining.sampling=uniform")
ARMS = {
    "without": (),
    "random": (*WINDOW, f"mining.quotas={{random: {NEGATIVES}}}"),
    "mined": WINDOW,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all arms; returns the exit code."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="of each arm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=ARMS, help="an arm; may be repeated")
    given = parse(parser, arguments)
    arms = given.only or list(ARMS)
    steps, seeds = (8, 1) if given.quick else (given.steps, given.seeds)
    print(machine())
    found: dict[str, list[float]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name in arms:
            found[name].append(accuracy(name, seed=seed, steps=steps))
            print(f"seed {seed}, {name}: {found[name][-1]:.4f}", flush=True)
    report(compare_arms(found, steps=steps), given)
    return 0


def compare_arms(found: dict[str, list[float]], *, steps: int) -> list[Row]:
    """A row for each pair of arms and seed, and one of the means."""
    rows = []
    for ours, peer in (("mined", "without"), ("mined", "random"), ("random", "without")):
        if ours not in found or peer not in found:
            continue
        what = f"kNN, {ours} beside {peer}, {steps} steps"
        pairs = list(zip(found[ours], found[peer], strict=True))
        rows += [
            compare_amounts(f"{what}, seed {seed}", a, b, unit="share") for seed, (a, b) in enumerate(pairs)
        ]
        rows.append(compare_amounts(f"{what}, mean", mean(found[ours]), mean(found[peer]), unit="share"))
    return rows


def accuracy(name: str, *, seed: int, steps: int) -> float:
    """Trains an arm; the share of test images whose class the nearest train images name."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(name, seed=seed, steps=steps, output=folder)
        data = load_images(config.source)
        encoder = build_image_encoder(config.encoder, seed=seed)
        groups = find_copies(data.images).groups
        trained = train_on_images(data, encoder, groups=groups, config=config).encoder
    task = Task.of(data, split="test")
    assert task is not None, "digits have classes"
    embedded = embed(task, lambda images, rows: trained.encode(images, rows=rows))
    return float(knn_right(task, embedded, config=config.evaluation, device=torch.device("cpu")).mean())


def config_of(name: str, *, seed: int, steps: int, output: str) -> ImageRunConfig:
    """The recipe with the arm's settings; all arms are cut into the same rounds."""
    settings = [
        "source.warped=true",
        f"training={{batch_size: 256, lr: 0.003, steps: {steps}, seed: {seed}, precision: fp32}}",
        *ROUNDS,
        f"training.num_negatives={NEGATIVES if ARMS[name] else 0}",
        "training.eval_at_start=false",
        f"output={output}",
        *ARMS[name],
    ]
    if ARMS[name]:
        settings.append(f"mining.num_negatives={NEGATIVES}")
    config = load_image_config(RECIPE, settings)
    check_training(config)
    return config


if __name__ == "__main__":
    sys.exit(main())

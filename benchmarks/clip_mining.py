"""CLIP with and without mined pairs, at equal steps and equal rows a step: success both ways on test.

    OMP_NUM_THREADS=1 PYTHONPATH=. python3 benchmarks/clip_mining.py --data data/fashion_products
        [--steps 360] [--seeds 3] [--only ARM] [--start MODEL] [--json FILE]

From configs/clip_fashion.yaml with an encoder of half its width. Three arms share seeds, first weights, steps
and rounds:

| arm | a batch |
|---|---|
| in-batch | pairs in a random order |
| random | from the second of three rounds on every second pair is drawn from a table of random ones |
| mined | from the same step on every second pair is mined for the one before it, from ranks 5 to 50 of the |
|       | captions that score high with its image, or of the images that score high with its captions |

With --start MODEL the arms start from a model that an earlier run left, with two rounds, both mined.

`ours` is an arm's share of right answers on test, `peer` that of the arm it is compared with, a row for each
seed and measure and one of the means; below them the paired permutation tests over the queries of a seed.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from side_by_side import Row, compare_amounts, machine, parse, report

from retrieval_cl.config import ImageTextRunConfig, load_image_text_config
from retrieval_cl.evaluation.significance import compare
from retrieval_cl.runs.image_text_config import DIRECTIONS
from retrieval_cl.runs.image_text_scores import Values
from retrieval_cl.runs.train_image_text import train_image_text

RECIPE = Path(__file__).parents[1] / "configs" / "clip_fashion.yaml"
MEASURES = ("success@1", "success@10")
WINDOW = ("mining.depth=60", "mining.rank_min=5", "mining.rank_max=50", "mining.sampling=uniform")
PAIRS = ("training.num_negatives=1", "mining.num_negatives=4")
ARMS: Mapping[str, tuple[str, ...]] = {
    "in-batch": (),
    "random": (*PAIRS, *WINDOW, "mining.quotas={random: 4}"),
    "mined": (*PAIRS, *WINDOW, "mining.quotas={other: {least: 1, most: 2}}"),
}
PAIRED = (("mined", "in-batch"), ("mined", "random"), ("random", "in-batch"))
Found = Mapping[str, Values]
"""Direction -> measure -> a value a query."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all arms; returns the exit code."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with images.npz and captions; default: the digits")
    parser.add_argument("--cache", type=Path, help="folder where decoded images are kept")
    parser.add_argument("--steps", type=int, default=360, help="of each arm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=Path, help="folder of a model; default: random weights")
    parser.add_argument("--only", action="append", choices=ARMS, help="an arm; may be repeated")
    given = parse(parser, arguments)
    arms = given.only or list(ARMS)
    steps, seeds = (6, 1) if given.quick else (given.steps, given.seeds)
    print(machine())
    found: dict[str, list[Found]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name in arms:
            values, seconds = run_arm(name, seed=seed, steps=steps, given=given)
            found[name].append(values)
            shown = "  ".join(f"{part} {what} {share(values, part, what):.4f}" for part, what in measures())
            print(f"seed {seed}, {name}: {shown}  ({seconds:.0f} s)", flush=True)
    rows = compare_arms(found, steps=steps)
    report(rows, given)
    for line in tests(found):
        print(line)
    return 0


def measures() -> list[tuple[str, str]]:
    """What is compared: direction and measure."""
    return [(part, what) for part in DIRECTIONS for what in MEASURES]


def share(values: Found, part: str, what: str) -> float:
    """Mean over the queries."""
    return float(values[part][what].mean())


def compare_arms(found: Mapping[str, Sequence[Found]], *, steps: int) -> list[Row]:
    """A row for each pair of arms, measure and seed, and one of the means."""
    rows = []
    for ours, peer in PAIRED:
        if ours not in found or peer not in found:
            continue
        for part, what in measures():
            name = f"{part} {what}, {ours} beside {peer}, {steps} steps"
            pairs = [
                (share(first, part, what), share(second, part, what))
                for first, second in zip(found[ours], found[peer], strict=True)
            ]
            rows += [
                compare_amounts(f"{name}, seed {seed}", first, second, unit="share")
                for seed, (first, second) in enumerate(pairs)
            ]
            means = [mean(side) for side in zip(*pairs, strict=True)]
            rows.append(compare_amounts(f"{name}, mean", *means, unit="share"))
    return rows


def tests(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """The paired tests, a line each."""
    lines = []
    for ours, peer in PAIRED:
        if ours not in found or peer not in found:
            continue
        for seed, (first, second) in enumerate(zip(found[ours], found[peer], strict=True)):
            for part, what in measures():
                one = compare(first[part][what], second[part][what])
                span = one.interval
                lines.append(
                    f"seed {seed}, {ours} - {peer}: {part} {what} {span.mean:+.4f} [{span.low:+.4f}, "
                    f"{span.high:+.4f}], p = {one.p:.2g}"
                )
    return lines


def run_arm(name: str, *, seed: int, steps: int, given: Namespace) -> tuple[dict[str, Values], float]:
    """Trains an arm; its values on the test split, and the seconds of its training and mining."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(name, seed=seed, steps=steps, output=folder, given=given)
        done = train_image_text(config)
    assert done.board is not None, "the data have a test split"
    # The model before training stands first.
    values = {part: next(reversed(done.board.systems[part].values())).metrics for part in DIRECTIONS}
    spent = done.run.seconds
    return values, sum(spent.get(stage, 0.0) for stage in ("train", "mine"))


def config_of(name: str, *, seed: int, steps: int, output: str, given: Namespace) -> ImageTextRunConfig:
    """The recipe with the arm's settings; all arms are cut into the same rounds."""
    if given.data is None:
        source = ["source={kind: caption_digits, warped: true, dev_share: 0.1}", "encoder.image.size=32"]
    else:
        cache = [f"source.cache_dir={given.cache}"] if given.cache is not None else []
        source = [f"source.path={given.data}", *cache]
    if given.start is None:
        start, lr, rounds, first = "encoder.image.width=16", 0.002, 3, 1
    else:
        start, lr, rounds, first = f"encoder={{kind: pretrained, path: {given.start}}}", 0.0005, 2, 0
    return load_image_text_config(
        RECIPE,
        [
            *source,
            start,
            f"training={{batch_size: 256, lr: {lr}, weight_decay: 0.05, steps: {steps}, seed: {seed}}}",
            f"training.rounds={rounds}",
            f"training.first_mined_round={first}",
            "training.eval_at_start=false",
            "evaluation.keep=last",
            f"output={output}/run",
            *ARMS[name],
        ],
    )


if __name__ == "__main__":
    sys.exit(main())

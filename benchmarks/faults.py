"""The collapse monitor against injected faults: caught, by which name, how late; and sound runs left alone.

    python benchmarks/faults.py [--images cifar10/train.npz] [--seeds 1,2] [--only TEXT] [--out FILE.jsonl]
                                [--json FILE]

Thresholds were set on warped digits (a small convnet, seed 0) and then frozen. With --images the same faults
are injected on other images, with another encoder (a small ResNet) and other seeds: the proof. No
run is stopped, so that all can be compared after as many steps: a fault counts where kNN accuracy (texts:
recall@10) is lower than the sound run's of the same seed by more than two standard errors. Runs that stand in
--out already are not repeated, so the work may be done in pieces.
"""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fault_cases import Case, faults, healthy
from fault_runs import Outcome, Setting, run_case
from side_by_side import machine, parse

from retrieval_cl.training.diagnosis import diagnose
from retrieval_cl.training.signals import Signals

DIGITS = Setting(
    "digits",
    {"kind": "convnet", "size": 16, "width": 16, "depths": (1, 1, 1)},
    {"preset": "digits"},
    lr=2e-3,
    steps=200,
)
# Looks in steps of the recorded ones: 25 apart, and 50 apart as training.health_every is by default.
STRIDES = {25: 1, 50: 2}
GOAL_STEPS = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, prints one table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help=".npz of JPEGs with labels; default: warped digits")
    parser.add_argument("--seeds", default="1", help="of the runs, such as 1,2; faults take the first")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"), help="runs that are done")
    given = parse(parser, arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    outcomes = run_missing(seeds, given)
    print(f"{machine()}; {setting_of(given).name}; seeds {given.seeds}")
    rows = [judge(case, outcomes) for case in cases(seeds) if key(case) in outcomes]
    for row in rows:
        print(line(row))
    print(summary(rows))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


def setting_of(given: Namespace) -> Setting:
    """Where the faults are injected."""
    if given.quick:
        return Setting("quick", DIGITS.encoder, DIGITS.augmentation, lr=DIGITS.lr, steps=4, look_every=2)
    if given.images is None:
        return DIGITS
    encoder = {"kind": "resnet", "size": 32, "width": 16, "depths": (1, 1)}
    return Setting(
        given.images.parent.name,
        encoder,
        {"preset": "dkobak_cifar"},
        lr=2e-3,
        steps=200,
        batch_size=64,
        num_images=3000,
        images=given.images,
    )


def cases(seeds: Sequence[int]) -> list[Case]:
    """Sound runs and faults of the first seed, then sound runs of the others."""
    first, *others = seeds
    return [*healthy(first), *faults(first), *(case for seed in others for case in healthy(seed))]


def key(case: Case) -> str:
    """A run's name and seed."""
    return f"{case.name}, seed {case.seed}"


def run_missing(seeds: Sequence[int], given: Namespace) -> dict[str, Outcome]:
    """All outcomes by key; those that are not in --out yet are run."""
    found: dict[str, Outcome] = {}
    if given.out.is_file():
        for text in given.out.read_text().splitlines():
            record = json.loads(text)
            name = record.pop("key")
            found[name] = Outcome(**record)
    setting = setting_of(given)
    for case in cases(seeds):
        if key(case) in found or given.only not in case.name:
            continue
        outcome = run_case(case, setting, log=given.out.with_suffix(".leaks"))
        found[key(case)] = outcome
        with given.out.open("a") as stream:
            stream.write(json.dumps({"key": key(case), **asdict(outcome)}) + "\n")
        print(f"{key(case)}: score {outcome.score:.3f}, {outcome.seconds:.0f} s", flush=True)
    return found


def judge(case: Case, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """One row: what was said, how late, and whether the run had really got worse."""
    own = outcomes[key(case)]
    sound = outcomes.get(f"{case.healthy}, seed {case.seed}")
    drop = None if sound is None else sound.score - own.score
    noise = 0.0 if sound is None else 2 * math.hypot(own.error, sound.error)
    return {
        "case": key(case),
        "is_fault": case.healthy is not None,
        "said": {every: detect(own, stride=stride) for every, stride in STRIDES.items()},
        "score": own.score,
        "drop": drop,
        "noise": noise,
        "counts": drop is not None and drop > noise,
    }


def detect(outcome: Outcome, *, stride: int) -> tuple[str, int] | None:
    """Name and step of the first fault, of every `stride`-th look; step 0: the leak check."""
    if outcome.leak is not None:
        return "leak check", 0
    looks = [Signals(**signals) for signals in outcome.looks][stride - 1 :: stride]
    for number in range(1, len(looks) + 1):
        fault = diagnose(looks[:number])
        if fault is not None:
            return fault.name, fault.step
    return None if outcome.diverged is None else ("diverged", outcome.diverged)


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    said = "; ".join(
        f"every {every}: " + ("nothing" if found is None else f"{found[0]} at {found[1]}")
        for every, found in row["said"].items()
    )
    against = "" if row["drop"] is None else f" (drop {row['drop']:+.3f}, noise {row['noise']:.3f})"
    return f"{row['case']:48} score {row['score']:.3f}{against:30} {said}"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Caught faults, false alarms, and the greatest delay."""
    real = [row for row in rows if row["is_fault"] and row["counts"]]
    sound = [row for row in rows if not row["is_fault"]]
    parts = []
    for every in STRIDES:
        caught = [row["said"][every] for row in real if row["said"][every] is not None]
        alarms = [row for row in sound if row["said"][every] is not None]
        slowest = max((step for _, step in caught), default=0)
        parts.append(
            f"looks every {every} steps: {len(caught)} of {len(real)} faults that lower the score caught, "
            f"the latest at step {slowest} (goal {GOAL_STEPS}); {len(alarms)} false alarms in {len(sound)} "
            "sound runs"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    main()

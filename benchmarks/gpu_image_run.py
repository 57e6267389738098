"""GPU section of a whole run of SimCLR on CIFAR-10, which several calls may share.

    PYTHONPATH=. python3 benchmarks/gpu_image_run.py --folder RUN [--epochs 100] [--seconds 540] [--json FILE]

trains by configs/simclr_cifar10.yaml, goes on from the newest checkpoint in RUN if there is one, and stops
with a checkpoint after so many seconds: several calls with one folder add up to one run, and end in the same
bits as one call. The last of them measures. CIFAR-10 is looked for in $RETRIEVAL_CL_DATA, which holds the
folder `cifar10`, else in shared/data within or beside the repository. The anchor is dkobak/simclr-cifar10:
kNN 83.2 +- .2 and linear 85.6 +- .2 after 100 epochs. A copy of CIFAR-10 that was coded as JPEG anew is
expected within about a point of that.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_images import ROOT, WHAT, config_of, noise, run_images
from side_by_side import Goal, Row, parse, report

from retrieval_cl.runs.image_scores import Task, embed, knn_right, linear_right
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.training.interrupts import Interrupted
from retrieval_cl.training.progress import Lines

TEN_MINUTES = Goal(600.0, of="ours")
EPOCHS, WHOLE_EPOCHS = 60, 100
# One point below the anchor.
GOALS = {"kNN": Goal(0.822, "at least", of="ours"), "linear": Goal(0.846, "at least", of="ours")}


def whole_run(device: torch.device, *, quick: bool) -> list[Row]:
    """60 epochs on CIFAR-10 with their accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        rows = run_epochs(Path(folder), epochs=1 if quick else EPOCHS, seconds=None, quick=quick)
    assert rows is not None, "nothing stops it"
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Goes on with the run in a folder; returns the exit code, 3 where it is not done yet."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="of the run and its checkpoints")
    parser.add_argument("--epochs", type=int, default=WHOLE_EPOCHS, help="of the whole run")
    parser.add_argument("--seconds", type=float, help="stop with a checkpoint after so many")
    given = parse(parser, arguments)
    rows = run_epochs(given.folder, epochs=given.epochs, seconds=given.seconds, quick=given.quick)
    if rows is None:
        return 3
    report(rows, given)
    return 0


def run_epochs(folder: Path, *, epochs: int, seconds: float | None, quick: bool) -> list[Row] | None:
    """Trains on, then measures; None where the time was up before, with a checkpoint in the folder."""
    source = [] if quick else [f"source.path={data_folder()}"]
    config = config_of(folder, quick=quick, settings=[*source, f"training.epochs_per_round={epochs}"])
    data = noise(config, count=64) if quick else load_images(config.source)
    started = time.perf_counter()
    timer = threading.Timer(seconds or 0.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        encoder, trained = run_images(config, data, display=Lines(sys.stdout))
    except Interrupted as stopped:
        print(f"{stopped}; call again to go on")
        return None
    finally:
        timer.cancel()
    spent = time.perf_counter() - started
    task = Task.of(data, split="test")
    assert task is not None, "CIFAR-10 has classes"
    embedded = embed(task, lambda images, rows: encoder.encode(images, rows=rows))
    accuracies = {
        "kNN": knn_right(task, embedded, config=config.evaluation, device=encoder.device).mean(),
        "linear": linear_right(task, embedded, seed=config.training.seed).mean(),
    }
    goals = GOALS if epochs == WHOLE_EPOCHS else {}
    return [
        Row(f"{WHAT}, {epochs} epochs: training in this call", spent, None, "s", None, TEN_MINUTES),
        Row(f"{WHAT}, {epochs} epochs: training in all calls", trained, None, "s", None),
        *(
            Row(
                f"{WHAT}, {epochs} epochs: {name} accuracy",
                float(value),
                None,
                "share",
                None,
                goals.get(name),
            )
            for name, value in accuracies.items()
        ),
    ]


def data_folder() -> Path:
    """Where CIFAR-10 lies. Raises FileNotFoundError where it does not."""
    given = os.environ.get("RETRIEVAL_CL_DATA")
    roots = [Path(given)] if given else [ROOT / "shared/data", ROOT.parent / "shared/data"]
    for root in roots:
        if (root / "cifar10").is_dir():
            return root / "cifar10"
    raise FileNotFoundError("no folder 'cifar10': set RETRIEVAL_CL_DATA to the folder that holds it")


if __name__ == "__main__":
    sys.exit(main())

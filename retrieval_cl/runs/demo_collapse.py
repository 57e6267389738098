"""The story of collapse: positives alone, then SimCLR, MoCo and BYOL, from the same first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64

from retrieval_cl.augmentation.augment import build_views
from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.core.alignment import alignment
from retrieval_cl.core.files import write_json
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.core.unit_rows import unit_rows
from retrieval_cl.encoders.image import ImageEncoder
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.methods.building import build_branch
from retrieval_cl.methods.byol import BYOL
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.image_tower import Branch
from retrieval_cl.methods.method import Method
from retrieval_cl.methods.moco import MoCo
from retrieval_cl.methods.simclr import SimCLR
from retrieval_cl.reporting.collapse_demo import CollapseArm, CollapseReport, write_collapse_report
from retrieval_cl.reporting.curves import read_arm
from retrieval_cl.runs.evaluate import RESULTS, Say
from retrieval_cl.runs.image_config import ImageEvaluationConfig
from retrieval_cl.runs.image_scores import Task, embed, knn_right
from retrieval_cl.runs.reports import provenance
from retrieval_cl.runs.run_folder import REPORT
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.sources.images.copies import find_copies
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.image_views import ImageViews
from retrieval_cl.sources.images.load import load_images
from retrieval_cl.training.callbacks import Evaluate
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import Collapse, Monitor
from retrieval_cl.training.run import Run
from retrieval_cl.training.trainer import start_run, train

POSITIVES_ALONE = "positives alone"
METRIC = "knn_accuracy"
ENCODER = ImageEncoderConfig(kind="convnet", size=16, depths=(1, 1, 1), width=16)
_HEAD = {"preset": "moco_v2", "hidden": 128, "dim": 64}
METHODS: Mapping[str, MethodConfig] = {
    POSITIVES_ALONE: MethodConfig.model_validate({"name": "simclr", "projector": _HEAD}),
    "SimCLR": MethodConfig.model_validate({"name": "simclr", "temperature": 0.2, "projector": _HEAD}),
    "MoCo": MethodConfig.model_validate(
        {"name": "moco", "queue": 1024, "momentum": 0.99, "projector": _HEAD, "symmetric": True}
    ),
    "BYOL": MethodConfig.model_validate(
        {
            "name": "byol",
            "momentum": 0.97,
            "projector": {"hidden": 256, "dim": 64},
            "predictor": {"hidden": 256},
        }
    ),
}


@final
@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo leaves.

    Attributes:
        folder: with report.html, results.json and the metrics of each arm.
        arms: what became of each.
        seconds: wall seconds in all.
    """

    folder: Path
    arms: Sequence[CollapseArm]
    seconds: float

    def text(self) -> str:
        """The outcome, for a terminal."""
        width = max(len(arm.name) for arm in self.arms)
        return "\n".join(f"{arm.name.ljust(width)}  {_outcome(arm)}" for arm in self.arms)


def demo_collapse(
    *,
    output: Path,
    steps: int = 200,
    seed: int = 0,
    command: str = "retrieval-cl demo collapse",
    say: Say = lambda line: None,
) -> DemoResult:
    """Trains four times for `steps` steps and draws what became of the vectors.

    Args:
        output: folder; what a demo left there is replaced.
        steps: of each arm; the monitor may stop one before.
        seed: of weights, batches and views, the same in all arms.
        command: what the user typed, for the report.
        say: gets a line for each arm.

    Raises:
        Interrupted: Ctrl-C came.
        Diverged: a loss is no number any more.
    """
    watch = Stopwatch()
    data = load_images(ImageSourceConfig(kind="digits", warped=True))
    task = Task.of(data, split="test")
    assert task is not None
    arms = []
    for name, config in METHODS.items():
        say(f"training: {name}")
        with watch(name):
            arms.append(_train_arm(name, config, data, task, folder=output, steps=steps, seed=seed))
    settings = {
        "data": f"{data.name}: {len(task.bank):,} digits train, {len(task.asked):,} are classified by them",
        "encoder": f"convnet of {len(ENCODER.depths or ())} layers",
        "steps": f"{steps:,} of {_training(steps, seed).batch_size} images each",
        "seed": str(seed),
    }
    report = CollapseReport(
        arms=arms, provenance=provenance(command, settings=settings), seconds=watch.seconds, total=watch.total
    )
    write_collapse_report(output / REPORT, report)
    write_json(output / RESULTS, {arm.name: _facts(arm) for arm in arms} | {"seconds": watch.total})
    return DemoResult(output, arms, watch.total)


def _train_arm(
    name: str, config: MethodConfig, data: ImageData, task: Task, *, folder: Path, steps: int, seed: int
) -> CollapseArm:
    encoder = build_image_encoder(ENCODER, seed=seed)
    method = _build(name, config, encoder, seed=seed)
    training = _training(steps, seed)
    source = ImageViews(
        data.images,
        rows=data.splits["train"],
        groups=find_copies(data.images).groups,
        augment=build_views(
            AugmentationConfig(preset="digits"), size=encoder.size, mean=encoder.mean, std=encoder.std
        ),
        batch_size=training.batch_size,
        device=encoder.device,
    )
    log = MetricsLog(folder / f"{name.lower().replace(' ', '_')}.jsonl")
    run = start_run(method, training, steps_per_epoch=source.steps_per_epoch)

    def measure(run: Run) -> dict[str, float]:
        return {METRIC: _knn(encoder, task)}

    stopped = ""
    try:
        train(run, source, callbacks=[Monitor(log), Evaluate(measure, log, metric=METRIC)])
    except Collapse as collapse:
        stopped = str(collapse)
        log.append(run.step, dev=measure(run))
    rows = task.asked
    return CollapseArm(
        name=name,
        curves=read_arm(log.path, name=name),
        vectors=_projections(method, encoder, data, rows),
        labels=task.labels[rows],
        accuracy=_knn(encoder, task),
        stopped=stopped,
    )


def _build(name: str, config: MethodConfig, encoder: ImageEncoder, *, seed: int) -> Method:
    """The method of an arm; heads start from the same numbers wherever they have the same shapes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == POSITIVES_ALONE:
            # No setting of the product does this.
            branch = build_branch(config, encoder)
            return SimCLR(branch, Temperature(config.temperature), objective=alignment)
        kinds: Mapping[str, type[Method]] = {"simclr": SimCLR, "moco": MoCo, "byol": BYOL}
        return kinds[config.name].build(config, encoder)


def _training(steps: int, seed: int) -> TrainingConfig:
    return TrainingConfig(
        seed=seed,
        batch_size=128,
        num_negatives=0,
        rounds=1,
        steps=steps,
        lr=2e-3,
        log_every=5,
        health_every=10,
        eval_every=20,
        precision="fp32",
    )


def _knn(encoder: ImageEncoder, task: Task) -> float:
    embedded = embed(task, lambda images, rows: encoder.encode(images, rows=rows))
    right = knn_right(task, embedded, config=ImageEvaluationConfig(), device=encoder.device)
    return float(right.mean())


@torch.no_grad()
def _projections(
    method: Method, encoder: ImageEncoder, data: ImageData, rows: Int64[np.ndarray, " R"]
) -> Float32[np.ndarray, "R D"]:
    """Unit rows as the loss sees them, of images without augmentation."""
    branch = next(module for module in method.children() if isinstance(module, Branch))
    branch.eval()
    vectors: Float32[np.ndarray, "R D"] = unit_rows(branch(encoder.prepare(data.images.take(rows)))).numpy()
    return vectors


def _outcome(arm: CollapseArm) -> str:
    if arm.stopped:
        return f"kNN accuracy {arm.accuracy:.3f}; stopped: {arm.stopped}"
    return f"kNN accuracy {arm.accuracy:.3f}, std ratio {arm.last('std_ratio'):.2f}: no collapse"


def _facts(arm: CollapseArm) -> dict[str, object]:
    signals = {key: arm.last(key) for key in ("std_ratio", "effective_rank", "alignment", "uniformity")}
    return {"knn_accuracy": arm.accuracy, **signals, "stopped": arm.stopped or None}

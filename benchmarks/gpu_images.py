"""GPU sections of a step of SimCLR on images of CIFAR-10's size: images a second, shares of its parts, waits.

The anchor is dkobak/simclr-cifar10 on an A100 with 16 workers: 11.9 s an epoch, about 4,200 images/s.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import Goal, Row, compare_amounts

from retrieval_cl.config import ImageRunConfig, check_training, load_image_config
from retrieval_cl.core.images import ArrayImages
from retrieval_cl.encoders.load_image import build_image_encoder
from retrieval_cl.runs.run_folder import CHECKPOINTS
from retrieval_cl.runs.self_supervised import build_method, image_views, train_on_images
from retrieval_cl.sources.images.copies import find_copies
from retrieval_cl.sources.images.data import ImageData
from retrieval_cl.sources.images.placed import to_device
from retrieval_cl.training.checkpoint import newest_checkpoint
from retrieval_cl.training.chunks import embed_views
from retrieval_cl.training.device import cast_to, resolve_precision, wait_for
from retrieval_cl.training.progress import Status
from retrieval_cl.training.run import Run, Source
from retrieval_cl.training.steps import limit_gradients
from retrieval_cl.training.trainer import start_run, train

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "simclr_cifar10.yaml"
ANCHOR = 4200.0
THRICE, FEW = Goal(3.0, "at least"), Goal(0.1, of="ours")
WHAT = "SimCLR, ResNet-18 (cifar), batch 512"
TINY = ("encoder.width=8", "encoder.depths=[1, 1]", "training.batch_size=16", "evaluation.knn_k=3")
WAIT_CASES = {
    "simclr": (),
    "moco": ("method={name: moco, queue: 4096, symmetric: true, norm: split}",),
    "byol": ("method={name: byol, projector: {hidden: 1024}, predictor: {hidden: 1024}}",),
}


def images(device: torch.device, *, quick: bool) -> list[Row]:
    """Source images a second of the loop, and the share of a step that each of its parts takes.

    Pixels are noise, on the device. `cudnn.benchmark` picks other kernels, for bits that may not repeat.
    """
    steps, warm_up = (3, 1) if quick else (100, 20)
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(folder, quick=quick, settings=[f"training.steps={steps}"])
        loop = Loop.of(config, noise(config, count=64 if quick else 50_000), device)
        rates = {}
        for name, picks in (("", False), (", cudnn.benchmark", True)):
            with torch.backends.cudnn.flags(enabled=True, benchmark=picks):
                loop.train(warm_up)
                rates[name] = steps * config.training.batch_size / loop.train(steps)
        shares = loop.shares(warm_up, steps)
    return [
        *(
            compare_amounts(f"{WHAT}{name}", rate, ANCHOR, unit="images/s", goal=THRICE)
            for name, rate in rates.items()
        ),
        *(
            Row(
                f"{WHAT}: share of {part}",
                share,
                None,
                "share",
                None,
                FEW if part == "augmentation" else None,
            )
            for part, share in shares.items()
        ),
    ]


def no_wait(device: torch.device, *, quick: bool) -> list[Row]:
    """Whole runs of each method: torch raises where the host waits for the GPU in steps nobody watches."""
    rows = []
    for name, settings in WAIT_CASES.items():
        quiet = ("training.steps=12", "training.log_every=1000", "training.health_every=1000")
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(folder, quick=quick, settings=[*settings, *quiet, "training.eval_every=null"])
            modes = {4: "error", 10: "default"}
            try:
                run_images(config, noise(config, count=64 if quick else 4096), display=Modes(modes))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        rows.append(Row(f"steps without a wait, {name}", 6, None, "steps", None))
    return rows


@dataclass(frozen=True, eq=False)
class Loop:
    """A method on its device with a source of batches on the same device."""

    method: Any
    source: Source
    config: ImageRunConfig

    @classmethod
    def of(cls, config: ImageRunConfig, data: ImageData, device: torch.device) -> Loop:
        """With the config's first weights."""
        encoder = build_image_encoder(config.encoder, seed=0).to(device)
        placed = ImageData(
            **{**vars(data), "images": to_device(data.images, device, max_gb=config.source.device_gb)}
        )
        groups = np.arange(len(data.images), dtype=np.int64)
        method = build_method(config, encoder).to(device)
        return cls(method, image_views(placed, encoder, groups=groups, config=config), config)

    def start(self, steps: int) -> Run:
        """A run of so many steps."""
        training = self.config.training.model_copy(update={"steps": steps})
        return start_run(self.method, training, steps_per_epoch=self.source.steps_per_epoch)

    def train(self, steps: int) -> float:
        """Seconds that the trainer's own loop takes."""
        run = self.start(steps)
        wait_for(run.device)
        started = time.perf_counter()
        train(run, self.source)
        wait_for(run.device)
        return time.perf_counter() - started

    def shares(self, warm_up: int, steps: int) -> dict[str, float]:
        """The share of each part of a step, in its order.

        The loss with its own way back to the vectors is a part; the tower's way back starts from there.
        """
        run, method = self.start(warm_up + steps), self.method.train()
        marks = Marks(run.device)
        precision = resolve_precision(self.config.training.precision, run.device)
        batches = self.source.batches(
            None, seed=0, round=0, num_steps=run.steps, start_step=0, rank=0, world=1, steps_before=0
        )
        for step in range(run.steps):
            if step == warm_up:
                marks = Marks(run.device)
            marks("start")
            batch = next(iter(batches))
            marks("augmentation")
            vectors = embed_views(method, batch, cast_to(precision, run.device))
            marks("forward")
            leaves = {name: each.detach().requires_grad_() for name, each in vectors.items()}
            method.loss(leaves, batch).mean().backward()
            marks("loss")
            torch.autograd.backward(list(vectors.values()), [leaf.grad for leaf in leaves.values()])
            marks("backward")
            limit_gradients(method, self.config.training.max_grad_norm)
            run.optimizer.step()
            run.optimizer.zero_grad()
            method.after_step({name: leaf.detach() for name, leaf in leaves.items()}, batch, 0.0)
            marks("optimizer")
        spent = marks.seconds()
        return {name: each / sum(spent.values()) for name, each in spent.items()}


class Marks:
    """Times between places of a program: by events on a GPU, which does its work later; else by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._places: list[tuple[str, Any]] = []

    def __call__(self, name: str) -> None:
        """The part of this name ends here; "start" belongs to none."""
        self._places.append((name, self._now()))

    def seconds(self) -> dict[str, float]:
        """Of each part, summed up."""
        wait_for(self._device)
        found: dict[str, float] = defaultdict(float)
        for (_, before), (name, after) in zip(self._places, self._places[1:], strict=False):
            if name != "start":
                found[name] += self._between(before, after)
        return dict(found)

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, before: Any, after: Any) -> float:
        return float(after - before if self._device.type != "cuda" else before.elapsed_time(after) / 1000)


class Modes:
    """A display that sets torch's mode for waits after some steps."""

    def __init__(self, modes: Mapping[int, str]) -> None:
        self._modes = modes
        self._set: Callable[[str], object] = torch.cuda.set_sync_debug_mode

    def show(self, status: Status) -> None:
        """Sets the mode that is due."""
        if status.step in self._modes:
            self._set(self._modes[status.step])

    def close(self) -> None:
        """Nothing is open."""


def run_images(config: ImageRunConfig, data: ImageData, *, display: Any) -> tuple[Any, float]:
    """Trains, or goes on where there is a checkpoint; the encoder, and seconds of training in all calls."""
    config.folder.mkdir(parents=True, exist_ok=True)
    resume = newest_checkpoint(config.folder / CHECKPOINTS) is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = build_image_encoder(config.encoder, seed=config.training.seed).to(device)
    groups = find_copies(data.images).groups
    found = train_on_images(data, encoder, groups=groups, config=config, display=display, resume=resume)
    return found.encoder, found.seconds["train"]


def config_of(folder: Path | str, *, quick: bool, settings: Sequence[str]) -> ImageRunConfig:
    """The recipe with some settings, or a tiny version of it."""
    if any(one.startswith("training.steps=") for one in settings):
        training = "training={batch_size: 512, optimizer: sgd, lr: 0.12, weight_decay: 0.0005, decays: all}"
        settings = [training, *settings]
    found = load_image_config(RECIPE, [*settings, f"output={folder}", *(TINY if quick else ())])
    check_training(found)
    return found


def noise(config: ImageRunConfig, *, count: int) -> ImageData:
    """Images of random pixels and classes, a quarter of them test."""
    random, side = np.random.default_rng(0), config.encoder.side or 32
    rows = np.arange(count, dtype=np.int64)
    return ImageData(
        name="noise",
        images=ArrayImages(random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)),
        ids=[str(row) for row in rows],
        labels=rows % 4,
        classes=("a", "b", "c", "d"),
        splits={"train": rows[count // 4 :], "test": rows[: count // 4]},
    )

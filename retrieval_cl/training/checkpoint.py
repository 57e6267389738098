"""Checkpoints: all that a run needs to go on in the same bits. Safetensors and JSON, whole or not at all.

Random generators are not in it: those of a step follow from seed, rank and step (`seeds.seed_step`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.optim import Optimizer

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder, read_manifest, write_manifest
from retrieval_cl.core.ranks import num_ranks, rank
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.training.run import Callback, Run

KIND = "checkpoint"
# These do not change what is learned, so a resumed run may have others.
FREE_SETTINGS = ("log_every", "health_every", "eval_every", "eval_at_start", "save_every", "keep_checkpoints")


def save_checkpoint(folder: Path, run: Run, *, callbacks: Sequence[Callback]) -> Path:
    """Writes `folder/step-00000123` and returns its path; rank 0 writes, the others wait.

    Checkpoints of later steps are dropped: the run they belong to was taken up again before them.
    """
    path = folder / f"step-{run.step:08d}"
    if rank() == 0:
        for step, later in list_checkpoints(folder):
            if step > run.step:
                shutil.rmtree(later)
        _write(path, run, callbacks)
    if num_ranks() > 1:
        dist.barrier()
    return path


def load_checkpoint(path: Path, run: Run, *, callbacks: Sequence[Callback]) -> None:
    """Puts a run that has just been started, and its callbacks, where the checkpoint left them.

    Raises:
        InputError: the folder is no checkpoint, or it is of another model or of other settings.
    """
    manifest = read_manifest(path, KIND)
    _check_settings(path, manifest, run)
    _load_weights(path / "model.safetensors", run.method)
    _load_optimizer(path / "optimizer.safetensors", run.optimizer)
    run.step, run.seconds, run.dev = manifest["step"], manifest["seconds"], manifest["dev"]
    run.round_steps = tuple(manifest["round_steps"])
    run.negatives = NegativeTable.load(path / "negatives") if manifest["has_negatives"] else None
    for name, callback in _named(callbacks):
        if name in manifest["callbacks"]:
            callback.load_state(manifest["callbacks"][name], run)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of each whole checkpoint, the newest last."""
    found = folder.glob("step-*") if folder.is_dir() else ()
    return sorted((int(path.name.removeprefix("step-")), path) for path in found if path.name[5:].isdigit())


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps; None where there is none."""
    found = list_checkpoints(folder)
    return found[-1][1] if found else None


def save_weights(method: nn.Module, folder: Path, **made_by: Any) -> None:
    """Writes the method's weights alone (the best so far), whole or not at all."""
    with new_folder(folder) as part:
        with _disk_errors(folder):
            save_model(method, str(part / "model.safetensors"))
        write_manifest(part, "weights", **made_by)


def load_weights(method: nn.Module, folder: Path) -> None:
    """Loads what `save_weights` wrote. Raises InputError where it is missing or of another model."""
    read_manifest(folder, "weights")
    _load_weights(folder / "model.safetensors", method)


def _write(path: Path, run: Run, callbacks: Sequence[Callback]) -> None:
    with new_folder(path) as part:
        with _disk_errors(path):
            save_model(run.method, str(part / "model.safetensors"))
            save_file(_optimizer_tensors(run.optimizer), part / "optimizer.safetensors")
        if run.negatives is not None:
            run.negatives.save(part / "negatives")
        write_manifest(
            part,
            KIND,
            step=run.step,
            steps=run.steps,
            round=run.round,
            planned=list(run.planned),
            round_steps=list(run.round_steps),
            seconds=run.seconds,
            has_negatives=run.negatives is not None,
            negatives_round=None if run.negatives is None else run.negatives.round,
            dev=run.dev,
            training=run.config.model_dump(mode="json"),
            num_ranks=num_ranks(),
            torch=torch.__version__,
            callbacks={name: callback.state() for name, callback in _named(callbacks)},
        )


def _named(callbacks: Sequence[Callback]) -> list[tuple[str, Callback]]:
    kinds = [type(callback).__name__ for callback in callbacks]
    return [(f"{kind}/{kinds[:i].count(kind)}", callbacks[i]) for i, kind in enumerate(kinds)]


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    # safetensors has an error of its own for a full disk.
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path}: not written: {error}") from None


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value.contiguous()
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(path: Path, optimizer: Optimizer) -> None:
    tensors = _read(path)
    parameters = {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    optimizer.state.clear()
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if name not in parameters:
            raise InputError(f"{path}: holds a state of '{name}', which this model does not train")
        optimizer.state[parameters[name]][kind] = _laid_out_as(parameters[name], value)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The value where the parameter is, and in its order in memory, which the file does not keep."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    # Fused optimisers pair numbers by their place in memory: convolutions lie with their channels last.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _load_weights(path: Path, method: nn.Module) -> None:
    _read_header(path)
    try:
        load_model(method, str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights are of another model: {reason[:300]}") from None


def _read(path: Path) -> dict[str, Tensor]:
    _read_header(path)
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_header(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the checkpoint is incomplete")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: broken: {error}") from None


def _check_settings(path: Path, manifest: Mapping[str, Any], run: Run) -> None:
    now = json.loads(run.config.model_dump_json()) | {
        "round_steps": list(run.planned),
        "num_ranks": num_ranks(),
    }
    then = manifest["training"] | {
        "round_steps": manifest.get("planned", manifest["round_steps"]),
        "num_ranks": manifest["num_ranks"],
    }
    for key in sorted(now.keys() - set(FREE_SETTINGS)):
        if now[key] != then.get(key):
            raise InputError(
                f"{path}: made with training.{key} {then.get(key)}, now it is {now[key]}; "
                "go on with the settings of the run, or start a new one"
            )

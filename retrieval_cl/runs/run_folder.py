"""The folder of a training run: what lies in it, and who may write there. Light."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn

from retrieval_cl.config import AnyRunConfig, load_any_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.reading import save_settings

MODEL = "model"
CONFIG = "config.yaml"
DATA = "data.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST = "best"
REPORT = "report.html"
# What decides the meaning of a checkpoint beside the settings of training, which it checks itself.
_SECTIONS = ("source", "augmentation", "encoder", "method", "mining")


def enter(folder: Path, config: AnyRunConfig, *, resume: bool, overwrite: bool) -> None:
    """Makes the folder ready for a run and writes its config; `overwrite` removes the run that stands there.

    Raises:
        InputError: as `check_entry`.
    """
    from retrieval_cl.core.ranks import rank

    check_entry(folder, config, resume=resume, overwrite=overwrite)
    if resume or rank() != 0:
        return
    for name in (MODEL, CHECKPOINTS, BEST):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, DATA):
        (folder / name).unlink(missing_ok=True)
    save_settings(config, folder / CONFIG, comment=f"retrieval-cl train {folder / CONFIG}")


def check_entry(folder: Path, config: AnyRunConfig, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may start, or go on, in the folder; changes nothing.

    Raises:
        InputError: a run stands there, and neither flag is set; or it was started with other settings.
    """
    if resume:
        _check_settings(folder, config)
        return
    standing = [name for name in (MODEL, CHECKPOINTS) if (folder / name).exists()]
    if standing and not overwrite:
        raise InputError(
            f"{folder}: holds a run already ({', '.join(standing)}); --resume goes on with it, --overwrite "
            "replaces it, --output takes another folder"
        )


def _check_settings(folder: Path, config: AnyRunConfig) -> None:
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no run to resume (no {CONFIG}); start without --resume")
    before = load_any_config(folder / CONFIG)
    if type(before) is not type(config):
        raise InputError(
            f"{folder / CONFIG}: started with source.kind {before.source.kind!r}, now it is "
            f"{config.source.kind!r}; `retrieval-cl train {folder} --resume` takes its own settings"
        )
    for section in (name for name in _SECTIONS if name in type(config).model_fields):
        then, now = getattr(before, section), getattr(config, section)
        if then == now:
            continue
        if then is None or now is None:
            _refuse_other(folder, section, then, now)
        for key in type(now).model_fields:
            if getattr(then, key) != getattr(now, key):
                _refuse_other(folder, f"{section}.{key}", getattr(then, key), getattr(now, key))


def _refuse_other(folder: Path, key: str, then: object, now: object) -> NoReturn:
    raise InputError(
        f"{folder / CONFIG}: started with {key} {then!r}, now it is {now!r}; `retrieval-cl train {folder} "
        "--resume` takes its own settings"
    )

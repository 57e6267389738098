"""The recipe of `quickstart`: settings chosen on dev, and what its control has otherwise. Light."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_cl.config import RunConfig, check_run, load_config
from retrieval_cl.training.config import REMINING

RECIPE = Path(__file__).with_name("quickstart.yaml")
# Chosen on dev over the same grids as those of the mined run: docs/log.md.
CONTROL_LR = 0.003
CONTROL_TEMPERATURE = 0.035
_ROUNDS = ("epochs_per_round", "first_round_epochs", "first_mined_round", *REMINING)


def quickstart_config(overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe with `--set` on top. Raises InputError as `load_config` does."""
    return load_config(RECIPE, overrides)


def with_source(config: RunConfig, folder: Path) -> RunConfig:
    """The same settings, reading the BEIR folder that the docs were written to."""
    return _changed(config, source={"kind": "beir", "path": str(folder)})


def control_config(config: RunConfig, *, folder: Path, steps: int) -> RunConfig:
    """The same run with in-batch negatives alone: one round of `steps` steps, its own rate and temperature.

    Args:
        config: of the mined run.
        folder: where the control goes.
        steps: that the mined run took.
    """
    values = config.model_dump(mode="json", exclude_unset=True)
    method = {**values.get("method", {}), "temperature": CONTROL_TEMPERATURE}
    shared = {key: value for key, value in values.get("training", {}).items() if key not in _ROUNDS}
    training = {**shared, "rounds": 1, "num_negatives": 0, "lr": CONTROL_LR, "steps": steps}
    return _changed(config, name="control", output=str(folder), method=method, training=training, mining={})


def _changed(config: RunConfig, **sections: Any) -> RunConfig:
    return check_run({**config.model_dump(mode="json", exclude_unset=True), **sections})

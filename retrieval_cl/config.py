"""The config of a run: the parts' own models composed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.reading import check_values, parse_override, put_overrides, read_values
from retrieval_cl.runs.config import EvaluationConfig, IndexConfig
from retrieval_cl.settings import Settings
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.training.config import TrainingConfig


class RunConfig(Settings):
    """All settings of a run. The seed of everything is `training.seed`."""

    name: str = Field("run", pattern=r"^[\w.-]+$", description="of the run, in reports and for its folder")
    output: str | None = Field(None, min_length=1, description="folder of the run; null: runs/<name>")
    source: SourceConfig = Field(default_factory=SourceConfig, description="the data")
    encoder: EncoderConfig = Field(default_factory=EncoderConfig, description="what embeds the texts")
    method: MethodConfig = Field(default_factory=MethodConfig, description="who is compared with whom")
    mining: MiningConfig = Field(default_factory=MiningConfig, description="how hard negatives are found")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how long and how fast")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="what is measured")
    index: IndexConfig = Field(default_factory=IndexConfig, description="how passages are indexed")

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("runs") / self.name if self.output is None else Path(self.output).expanduser()


def load_config(path: Path | None, overrides: Sequence[str] = (), *, data: str | None = None) -> RunConfig:
    """Reads a YAML file, puts `key=value` overrides on top, and checks all of it.

    Args:
        path: the file; None starts from the defaults.
        overrides: as given to `--set`: `training.lr=1e-3`; values are read as YAML.
        data: a folder, file or id that takes the place of the section `source`; overrides come after it.

    Raises:
        InputError: one line: a missing or broken file, an unknown key (the nearest name is offered), a wrong
            type or an impossible value, each with its file and line or its `--set`.
    """
    values, places = read_values(path)
    if data is not None:
        values["source"], places[("source",)] = _source_of(data), f"--data {data}"
    put_overrides(values, places, overrides=overrides)
    return check_values(RunConfig, values, places=places)


def check_run(values: Mapping[str, Any]) -> RunConfig:
    """The config of nested values. Raises InputError as `load_config` does."""
    return check_values(RunConfig, values)


def refuse_overrides(overrides: Sequence[str], *, used: Sequence[str], command: str) -> None:
    """Raises InputError for a `--set` of a section that the command does not read."""
    for override in overrides:
        key, _ = parse_override(override)
        if key[0] in RunConfig.model_fields and key[0] not in used:
            raise InputError(
                f"--set {override}: '{key[0]}' has no effect in `{command}`; it reads {', '.join(used)}"
            )


def set_output(output: Path | None) -> list[str]:
    """The override that `--output` stands for."""
    return [] if output is None else [f"output={json.dumps(str(output))}"]


def mines(training: TrainingConfig) -> bool:
    """Whether any round of this training has mined negatives."""
    return training.first_mined_round < training.rounds and training.num_negatives > 0


def check_training(config: RunConfig) -> None:
    """Raises InputError where settings on mined negatives have no effect in training, or do not fit it."""
    training, mining, method = config.training, config.mining, config.method
    if training.num_negatives == 0 and method.negatives == "private":
        raise InputError("method.negatives: private has no effect with training.num_negatives 0")
    if training.num_negatives == 0 and not method.in_batch:
        raise InputError(
            "method.in_batch is false, but training.num_negatives is 0: nothing to compare with; raise it"
        )
    changed = [
        key for key, field in MiningConfig.model_fields.items() if getattr(mining, key) != field.default
    ]
    if not mines(training) and changed:
        raise InputError(
            f"mining.{changed[0]} has no effect: no round is mined for (training.rounds {training.rounds}, "
            f"first_mined_round {training.first_mined_round}, num_negatives {training.num_negatives})"
        )
    if mines(training) and training.num_negatives > mining.num_negatives:
        raise InputError(
            f"training.num_negatives {training.num_negatives} is more than mining.num_negatives "
            f"{mining.num_negatives} gives; raise mining.num_negatives"
        )


def _source_of(data: str) -> dict[str, Any]:
    """The source settings of what stands at a path; what is no path is an id on the Hugging Face hub."""
    path = Path(data).expanduser()
    if path.is_dir():
        is_beir = any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
        is_saved = any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
        return {"kind": "beir" if is_beir else "huggingface" if is_saved else "pairs", "path": data}
    if path.is_file():
        return {"kind": "pairs", "path": data}
    if data == "pydoc":
        return {"kind": "pydoc"}
    if data.count("/") == 1 and not data.startswith((".", "~", "/")):
        return {"kind": "huggingface", "path": data}
    raise InputError(
        f"--data {data}: no such file or folder; expected a BEIR folder, a file of pairs, or an id"
    )

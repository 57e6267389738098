"""The config of a run: the parts' own models composed, read from YAML and `--set a.b=c`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field, ValidationError

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.core.files import new_file
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.config import EvaluationConfig, IndexConfig
from retrieval_cl.settings import Settings
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.training.config import TrainingConfig

Key = tuple[str, ...]
Places = Mapping[Key, str]
"""Key -> where it was set (`recipe.yaml, line 3` or `--set a.b=c`), for messages."""


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
    values, places = ({}, {}) if path is None else _read_yaml(path)
    if data is not None:
        values["source"], places[("source",)] = _source_of(data), f"--data {data}"
    for override in overrides:
        key, value = _parse_override(override)
        _put(values, key, value, override=override)
        places[key] = f"--set {override}"
    return check_values(values, places=places)


def check_values(values: Mapping[str, Any], *, places: Places | None = None) -> RunConfig:
    """The config of nested values. Raises InputError as `load_config` does."""
    # A section with all its keys commented out is empty, and YAML reads it as null.
    filled = {key: value for key, value in values.items() if value is not None}
    try:
        return RunConfig.model_validate(filled)
    except ValidationError as error:
        raise InputError(_describe(error, places or {})) from None


def save_config(config: RunConfig, path: Path, *, comment: str = "") -> None:
    """Writes what was set, not the defaults: `load_config` reads it again as the same config."""
    values = config.model_dump(mode="json", exclude_unset=True)
    head = f"# {comment}\n" if comment else ""
    with new_file(path) as part:
        part.write_text(head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf8")


def refuse_overrides(overrides: Sequence[str], *, used: Sequence[str], command: str) -> None:
    """Raises InputError for a `--set` of a section that the command does not read."""
    for override in overrides:
        key, _ = _parse_override(override)
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


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Key, str]]:
    try:
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a YAML file") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a config, see configs/ for examples") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        places = {key: f"{path}, line {line}" for key, line in _key_lines(node, path)}
        values = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}, line {line}: broken YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: broken YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected settings as `key: value`, got {type(values).__name__}")
    return values, places


def _key_lines(node: yaml.Node | None, path: Path, parent: Key = ()) -> Iterator[tuple[Key, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Key] = set()
    for name, value in node.value:
        key, line = (*parent, str(name.value)), name.start_mark.line + 1
        if key in seen:
            # YAML would take the last one without a word.
            raise InputError(f"{path}, line {line}: key '{'.'.join(key)}' stands twice")
        seen.add(key)
        yield key, line
        yield from _key_lines(value, path, key)


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


def _parse_override(override: str) -> tuple[Key, Any]:
    name, equals, text = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise InputError(f"--set {override}: expected key=value, such as training.lr=1e-3")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"--set {override}: the value is broken YAML: {problem}") from None


def _put(values: dict[str, Any], key: Key, value: Any, *, override: str) -> None:
    place: Any = values
    for depth, name in enumerate(key[:-1]):
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override}: '{'.'.join(key[: depth + 1])}' holds no keys of its own")
    place[key[-1]] = value


def _describe(error: ValidationError, places: Places) -> str:
    first, *others = error.errors()
    key = tuple(str(part) for part in first["loc"])
    above = [key[:end] for end in range(len(key), 0, -1)]
    below = [place for place in places if place[: len(key)] == key and place != key]
    # Where a section is at odds with itself, the place of a key that the message names says most.
    named = [place for place in below if place[-1] in re.findall(r"\w+", str(first["msg"]))]
    place = next((places[one] for one in (*named, *above, *below) if one in places), "")
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {_problem(first, key)}{more}" if place else f"{_problem(first, key)}{more}"


def _problem(error: Mapping[str, Any], key: Key) -> str:
    name, value = ".".join(key), error["input"]
    if error["type"] == "extra_forbidden":
        return f"unknown key '{name}'{_nearest_key(key)}"
    if error["type"] == "value_error":
        # Ours, from a model's own check: it may name its key already.
        text = str(error["ctx"]["error"])
        return text if text.startswith(name) else f"{name}: {text}"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"'{name}' is {value!r}; it holds keys of its own: {', '.join(_keys_of(key))}"
    text = str(error["msg"]).replace("Input should be", "expected", 1)
    return f"{name} is {value!r}; {text[:1].lower()}{text[1:]}"


def _nearest_key(key: Key) -> str:
    siblings = [".".join((*key[:-1], name)) for name in _keys_of(key[:-1])]
    elsewhere = [name for name in _all_keys() if name.rpartition(".")[2] == key[-1]]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    return nearest_name(".".join(key), siblings) or f"; valid: {', '.join(siblings)}"


def _keys_of(key: Key) -> list[str]:
    model: Any = RunConfig
    for name in key:
        field = getattr(model, "model_fields", {}).get(name)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        # A section that may be null is a union.
        model = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    return list(getattr(model, "model_fields", {}))


def _all_keys(parent: Key = ()) -> Iterator[str]:
    for name in _keys_of(parent):
        yield ".".join((*parent, name))
        yield from _all_keys((*parent, name))

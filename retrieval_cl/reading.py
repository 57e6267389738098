"""Settings from YAML and `--set a.b=c`, checked against a model; every complaint names its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.core.files import new_file
from retrieval_cl.settings import Settings

Key = tuple[str, ...]
Values = dict[str, Any]
Places = Mapping[Key, str]
"""Key -> where it was set (`recipe.yaml, line 3` or `--set a.b=c`), for messages."""
Model = TypeVar("Model", bound=Settings)


def read_values(path: Path | None) -> tuple[Values, dict[Key, str]]:
    """The nested values of a YAML file and where each stands; nothing where there is no file.

    Raises:
        InputError: the file is missing, cannot be read, is broken YAML, or holds no settings.
    """
    return ({}, {}) if path is None else _read_yaml(path)


def put_overrides(values: Values, places: dict[Key, str], *, overrides: Sequence[str]) -> None:
    """Puts `key=value` overrides on top, in order. Raises InputError for one that is not of that form."""
    for override in overrides:
        key, value = parse_override(override)
        _put(values, key, value, override=override)
        places[key] = f"--set {override}"


def check_values(model: type[Model], values: Mapping[str, Any], *, places: Places | None = None) -> Model:
    """The model of nested values.

    Raises:
        InputError: one line: an unknown key (the nearest name is offered), a wrong type or an impossible
            value, each with its place.
    """
    # A section with all its keys commented out is empty, and YAML reads it as null.
    filled = {key: value for key, value in values.items() if value is not None}
    try:
        return model.model_validate(filled)
    except ValidationError as error:
        raise InputError(_describe(error, places or {}, model)) from None


def save_settings(settings: Settings, path: Path, *, comment: str = "") -> None:
    """Writes what was set, not the defaults: read again it is the same."""
    values = settings.model_dump(mode="json", exclude_unset=True)
    head = f"# {comment}\n" if comment else ""
    with new_file(path) as part:
        part.write_text(head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf8")


def _read_yaml(path: Path) -> tuple[Values, dict[Key, str]]:
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


def parse_override(override: str) -> tuple[Key, Any]:
    """Key and value of `a.b=c`. Raises InputError for what is not of that form."""
    name, equals, text = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise InputError(f"--set {override}: expected key=value, such as training.lr=1e-3")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"--set {override}: the value is broken YAML: {problem}") from None


def _put(values: Values, key: Key, value: Any, *, override: str) -> None:
    place: Any = values
    for depth, name in enumerate(key[:-1]):
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override}: '{'.'.join(key[: depth + 1])}' holds no keys of its own")
    place[key[-1]] = value


def _describe(error: ValidationError, places: Places, model: type[Settings]) -> str:
    first, *others = error.errors()
    key = tuple(str(part) for part in first["loc"])
    above = [key[:end] for end in range(len(key), 0, -1)]
    below = [place for place in places if place[: len(key)] == key and place != key]
    # Where a section is at odds with itself, the place of a key that the message names says most, and of
    # those what came last: the command line, after the file.
    words = set(re.findall(r"\w+", str(first["msg"])))
    typed = [place for place in below if places[place].startswith("--")]
    named = [place for place in (*typed, *below) if words & set(place[len(key) :])]
    place = next((places[one] for one in (*named, *typed, *above, *below) if one in places), "")
    more = f" (and {len(others)} more)" if others else ""
    return (
        f"{place}: {_problem(first, key, model)}{more}" if place else f"{_problem(first, key, model)}{more}"
    )


def _problem(error: Mapping[str, Any], key: Key, model: type[Settings]) -> str:
    name, value = ".".join(key), error["input"]
    if error["type"] == "extra_forbidden":
        return f"unknown key '{name}'{_nearest_key(key, model)}"
    if error["type"] == "value_error":
        # Ours, from a model's own check: it may name its key already.
        text = str(error["ctx"]["error"])
        return text if text.startswith(name) else f"{name}: {text}"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"'{name}' is {value!r}; it holds keys of its own: {', '.join(_keys_of(key, model))}"
    text = str(error["msg"]).replace("Input should be", "expected", 1)
    return f"{name} is {value!r}; {text[:1].lower()}{text[1:]}"


def _nearest_key(key: Key, model: type[Settings]) -> str:
    siblings = [".".join((*key[:-1], name)) for name in _keys_of(key[:-1], model)]
    elsewhere = [name for name in _all_keys(model) if name.rpartition(".")[2] == key[-1]]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    return nearest_name(".".join(key), siblings) or f"; valid: {', '.join(siblings)}"


def _keys_of(key: Key, model: type[Settings]) -> list[str]:
    place: Any = model
    for name in key:
        field = getattr(place, "model_fields", {}).get(name)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        # A section that may be null is a union.
        place = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    return list(getattr(place, "model_fields", {}))


def _all_keys(model: type[Settings], parent: Key = ()) -> Iterator[str]:
    for name in _keys_of(parent, model):
        yield ".".join((*parent, name))
        yield from _all_keys(model, (*parent, name))

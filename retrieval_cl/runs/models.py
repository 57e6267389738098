"""Which model a name on the command line means: a run, a model folder, or an id; and the config it brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from retrieval_cl.config import (
    AnyRunConfig,
    ImageRunConfig,
    ImageTextRunConfig,
    RunConfig,
    load_any_config,
    load_config,
    load_image_config,
    load_image_text_config,
    set_output,
)
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, read_json
from retrieval_cl.encoders.image_config import IMAGE_FOLDER_KIND
from retrieval_cl.encoders.image_text_config import IMAGE_TEXT_FOLDER_KIND, holds_whole_model
from retrieval_cl.kinds import NAMES, RunKind
from retrieval_cl.runs.run_folder import CONFIG, MODEL

_MODULES = "modules.json"
# Kind in the manifest of a model's folder -> what it embeds.
_FOLDER_KINDS: dict[str, RunKind] = {IMAGE_FOLDER_KIND: "images", IMAGE_TEXT_FOLDER_KIND: "image_text"}


@final
@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        path: what the encoder is loaded from: a folder, or a Hugging Face id.
        name: short, for tables.
        run: the folder of the run it came from; None for others.
        embeds: what it is a model of.
    """

    path: str
    name: str
    run: Path | None
    embeds: RunKind = "texts"

    @property
    def is_folder(self) -> bool:
        """Whether it lies on this disk."""
        return Path(self.path).is_dir()

    @property
    def folder(self) -> Path:
        """Where results about it go: the folder of its run, else runs/<name>."""
        return Path("runs") / self.name if self.run is None else self.run


def find_model(name: str) -> Model:
    """Finds a run folder (as `train` leaves it), a folder of a model, or takes `name` as an id.

    Raises:
        InputError: the folder is there but holds no model.
    """
    folder = Path(name).expanduser()
    if (folder / MODEL / _MODULES).is_file():
        return Model(str(folder / MODEL), folder.resolve().name, folder)
    if (folder / _MODULES).is_file():
        run = folder.parent if (folder.parent / CONFIG).is_file() else None
        return Model(str(folder), (folder if run is None else run).resolve().name, run)
    for model in (folder / MODEL, folder):
        if (embeds := _kind_of_folder(model)) is not None:
            run = model.parent if (model.parent / CONFIG).is_file() else None
            return Model(str(model), (folder if run is None else run).resolve().name, run, embeds)
    if folder.is_dir():
        why = (
            "training has not finished: `retrieval-cl train ... --resume` goes on with it"
            if (folder / CONFIG).is_file()
            else f"expected {MODEL}/ as `train` leaves it, or a sentence-transformers folder"
        )
        kind = " (it has a manifest: perhaps an index or a table)" if (folder / MANIFEST).is_file() else ""
        raise InputError(f"{folder}: no model in this folder{kind}; {why}")
    if folder.exists():
        raise InputError(f"{folder}: a file; a model is a folder or a Hugging Face id")
    return Model(name, name.rstrip("/").rpartition("/")[2] or name, None)


def require_texts(model: Model) -> None:
    """Raises InputError for a model of anything but texts."""
    if model.embeds != "texts":
        raise InputError(f"{model.path}: a model of {NAMES[model.embeds]}; this command takes one of texts")


def config_for(
    model: Model | None,
    *,
    config: Path | None,
    overrides: Sequence[str],
    data: str | None = None,
    needs_data: bool = True,
) -> RunConfig:
    """The config given, else that of the model's run, with `--set` and `--data` on top.

    Raises:
        InputError: as `load_config`; or nothing says which data to read, or it is a model of images.
    """
    if model is not None:
        require_texts(model)
    path = config if config is not None else _own_config(model)
    if needs_data and path is None and data is None and not _names_source(overrides):
        raise InputError(
            "no data named: give --data FOLDER, or --config FILE with source settings "
            "(--data pydoc reads the docs of the installed packages)"
        )
    return load_config(path, overrides, data=data)


def image_config_for(
    model: Model, *, config: Path | None, overrides: Sequence[str], data: str | None = None
) -> ImageRunConfig:
    """As `config_for`, for a model of images.

    Raises:
        InputError: as `load_config`; or nothing says which images to read.
    """
    return load_image_config(_images_named(model, config, overrides, data), overrides, data=data)


def image_text_config_for(
    model: Model, *, config: Path | None, overrides: Sequence[str], data: str | None = None
) -> ImageTextRunConfig:
    """As `image_config_for`, for a model of images with texts."""
    return load_image_text_config(_images_named(model, config, overrides, data), overrides, data=data)


def config_to_train(
    config: Path | None, *, output: Path | None, overrides: Sequence[str], data: str | None
) -> AnyRunConfig:
    """The config to train with; `config` may be the folder of a run, which then is the output too.

    Raises:
        InputError: as `load_config`; or nothing says what to train on.
    """
    if config is not None and config.is_dir():
        overrides = [*overrides, *set_output(output or config)]
        return load_any_config(config / CONFIG, overrides, data=data)
    if config is None and data is None and not _names_source(overrides):
        raise InputError("nothing to train on: give a config, or --data FOLDER")
    return load_any_config(config, [*overrides, *set_output(output)], data=data)


def _images_named(
    model: Model, config: Path | None, overrides: Sequence[str], data: str | None
) -> Path | None:
    """The config to read; raises InputError where nothing names the images."""
    path = config if config is not None else _own_config(model)
    if path is None and data is None and not _names_source(overrides):
        raise InputError("no images named: give --data FOLDER, or --config FILE with source settings")
    return path


def _own_config(model: Model | None) -> Path | None:
    return None if model is None or model.run is None else model.run / CONFIG


def _kind_of_folder(folder: Path) -> RunKind | None:
    """What a folder with a manifest of ours, or of a CLIP or SigLIP model, embeds; None: neither."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return _FOLDER_KINDS.get(read_json(manifest).get("kind", ""))
    return "image_text" if holds_whole_model(folder) else None


def _names_source(overrides: Sequence[str]) -> bool:
    return any(one.startswith("source") for one in overrides)

"""The config of a run: the parts' own models composed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from retrieval_cl.augmentation.config import AugmentationConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.image_config import ImageEncoderConfig
from retrieval_cl.encoders.image_text_config import ImageTextEncoderConfig
from retrieval_cl.kinds import RunKind, kind_of_data, refuse_other_kind, run_kind, source_of
from retrieval_cl.methods.config import IMAGE_METHODS, IMAGE_TEXT_METHODS, MethodConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.reading import Key, Values, check_values, parse_override, put_overrides, read_values
from retrieval_cl.runs.config import EvaluationConfig, IndexConfig
from retrieval_cl.runs.image_checks import check_image_mining, check_image_text
from retrieval_cl.runs.image_config import ImageEvaluationConfig, ImageTrainingConfig
from retrieval_cl.runs.image_text_config import ImageTextEvaluationConfig, ImageTextTrainingConfig
from retrieval_cl.settings import Settings
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.sources.image_text.config import ImageTextSourceConfig
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.training.config import TrainingConfig

_NAME = r"^[\w.-]+$"


class RunConfig(Settings):
    """All settings of a run on texts. The seed of everything is `training.seed`."""

    name: str = Field("run", pattern=_NAME, description="of the run, in reports and for its folder")
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
        return _folder(self.name, self.output)


class ImageRunConfig(Settings):
    """All settings of a run on images. The seed of everything is `training.seed`."""

    name: str = Field("run", pattern=_NAME, description="of the run, in reports and for its folder")
    output: str | None = Field(None, min_length=1, description="folder of the run; null: runs/<name>")
    source: ImageSourceConfig = Field(default_factory=ImageSourceConfig, description="the images")
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="how two views are made of an image"
    )
    encoder: ImageEncoderConfig = Field(
        default_factory=ImageEncoderConfig, description="what embeds the images"
    )
    method: MethodConfig = Field(
        default_factory=partial(MethodConfig, name="simclr"), description="who is compared with whom"
    )
    mining: MiningConfig = Field(default_factory=MiningConfig, description="how hard negatives are found")
    training: ImageTrainingConfig = Field(
        default_factory=ImageTrainingConfig, description="how long and how fast"
    )
    evaluation: ImageEvaluationConfig = Field(
        default_factory=ImageEvaluationConfig, description="what is measured"
    )
    index: IndexConfig = Field(default_factory=IndexConfig, description="how images are indexed")

    @field_validator("method", mode="before")
    @classmethod
    def _method_is_simclr_unless_named(cls, values: Any) -> Any:
        return {"name": "simclr", **values} if isinstance(values, dict) else values

    @field_validator("method")
    @classmethod
    def _method_takes_images(cls, method: MethodConfig) -> MethodConfig:
        if method.name not in IMAGE_METHODS:
            raise ValueError(f"name '{method.name}' takes texts; of images: {', '.join(IMAGE_METHODS)}")
        return method

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return _folder(self.name, self.output)


class ImageTextRunConfig(Settings):
    """All settings of a run on images with texts. The seed of everything is `training.seed`."""

    name: str = Field("run", pattern=_NAME, description="of the run, in reports and for its folder")
    output: str | None = Field(None, min_length=1, description="folder of the run; null: runs/<name>")
    source: ImageTextSourceConfig = Field(
        default_factory=ImageTextSourceConfig, description="the images and their captions"
    )
    augmentation: AugmentationConfig | None = Field(
        None,
        description="a random view of each image, by its first recipe; null: none",
    )
    encoder: ImageTextEncoderConfig = Field(
        default_factory=ImageTextEncoderConfig, description="what embeds images and texts"
    )
    method: MethodConfig = Field(
        default_factory=partial(MethodConfig, name="clip"), description="who is compared with whom"
    )
    mining: MiningConfig = Field(default_factory=MiningConfig, description="how hard negatives are found")
    training: ImageTextTrainingConfig = Field(
        default_factory=ImageTextTrainingConfig, description="how long and how fast"
    )
    evaluation: ImageTextEvaluationConfig = Field(
        default_factory=ImageTextEvaluationConfig, description="what is measured"
    )
    index: IndexConfig = Field(default_factory=IndexConfig, description="how images or captions are indexed")

    @field_validator("method", mode="before")
    @classmethod
    def _method_is_clip_unless_named(cls, values: Any) -> Any:
        return {"name": "clip", **values} if isinstance(values, dict) else values

    @field_validator("method")
    @classmethod
    def _method_takes_images_with_texts(cls, method: MethodConfig) -> MethodConfig:
        if method.name not in IMAGE_TEXT_METHODS:
            valid = ", ".join(IMAGE_TEXT_METHODS)
            raise ValueError(f"name '{method.name}' takes no images with texts; valid: {valid}")
        return method

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return _folder(self.name, self.output)


AnyRunConfig = RunConfig | ImageRunConfig | ImageTextRunConfig
_MODELS: dict[RunKind, type[RunConfig] | type[ImageRunConfig] | type[ImageTextRunConfig]] = {
    "texts": RunConfig,
    "images": ImageRunConfig,
    "image_text": ImageTextRunConfig,
}
_SECTIONS = {name for model in _MODELS.values() for name in model.model_fields}


def load_config(path: Path | None, overrides: Sequence[str] = (), *, data: str | None = None) -> RunConfig:
    """The config of a run on texts: a YAML file, with `key=value` overrides on top, checked.

    Args:
        path: the file; None starts from the defaults.
        overrides: as given to `--set`: `training.lr=1e-3`; values are read as YAML.
        data: a folder, file or id that takes the place of the section `source`; overrides come after it.

    Raises:
        InputError: one line: a missing or broken file, an unknown key (the nearest name is offered), a wrong
            type or an impossible value, each with its file and line or its `--set`.
    """
    values, places = _read(path, overrides, data=data, kind="texts")
    return check_values(RunConfig, values, places=places)


def load_image_config(
    path: Path | None, overrides: Sequence[str] = (), *, data: str | None = None
) -> ImageRunConfig:
    """As `load_config`, for images. Raises InputError as it does."""
    values, places = _read(path, overrides, data=data, kind="images")
    refuse_other_kind(values, places)
    return check_values(ImageRunConfig, values, places=places)


def load_image_text_config(
    path: Path | None, overrides: Sequence[str] = (), *, data: str | None = None
) -> ImageTextRunConfig:
    """As `load_config`, for images with texts. Raises InputError as it does."""
    values, places = _read(path, overrides, data=data, kind="image_text")
    refuse_other_kind(values, places)
    return check_values(ImageTextRunConfig, values, places=places)


def load_any_config(
    path: Path | None, overrides: Sequence[str] = (), *, data: str | None = None
) -> AnyRunConfig:
    """As `load_config`, for any run: the kind of the source, else the method, tells what it is about.

    Raises:
        InputError: as `load_config`; or the method does not take what the source gives.
    """
    values, places = _read(path, overrides, data=data)
    refuse_other_kind(values, places)
    model = _MODELS[run_kind(values)]
    return check_values(model, values, places=places)


def check_run(values: Mapping[str, Any]) -> RunConfig:
    """The config of nested values. Raises InputError as `load_config` does."""
    return check_values(RunConfig, values)


def refuse_overrides(overrides: Sequence[str], *, used: Sequence[str], command: str) -> None:
    """Raises InputError for a `--set` of a section that the command does not read."""
    for override in overrides:
        key, _ = parse_override(override)
        if key[0] in _SECTIONS and key[0] not in used:
            raise InputError(
                f"--set {override}: '{key[0]}' has no effect in `{command}`; it reads {', '.join(used)}"
            )


def set_output(output: Path | None) -> list[str]:
    """The override that `--output` stands for."""
    return [] if output is None else [f"output={json.dumps(str(output))}"]


def mines(training: TrainingConfig) -> bool:
    """Whether any round of this training has mined negatives."""
    return training.first_mined_round < training.rounds and training.num_negatives > 0


def check_training(config: AnyRunConfig) -> None:
    """Raises InputError where settings on mined negatives have no effect in training, or do not fit it."""
    training, mining, method = config.training, config.mining, config.method
    if isinstance(config, ImageRunConfig):
        check_image_mining(method, mining, training)
    if isinstance(config, ImageTextRunConfig):
        check_image_text(method, mining, config.training, config.evaluation)
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


def _folder(name: str, output: str | None) -> Path:
    return Path("runs") / name if output is None else Path(output).expanduser()


def _read(
    path: Path | None, overrides: Sequence[str], *, data: str | None, kind: RunKind | None = None
) -> tuple[Values, dict[Key, str]]:
    """Nested values and places. `kind`: of what is at `data`; None: as the method and source want."""
    values, places = read_values(path)
    if data is not None:
        given = deepcopy(values)
        put_overrides(given, {}, overrides=overrides)
        values["source"] = source_of(data, kind or kind_of_data(given, data))
        places[("source",)] = f"--data {data}"
    put_overrides(values, places, overrides=overrides)
    return values, places

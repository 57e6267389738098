"""Settings of training and evaluation on images with texts. Light: imported before any model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from retrieval_cl.core.errors import nearest_name
from retrieval_cl.settings import Settings
from retrieval_cl.sources.images.config import ImageSourceConfig
from retrieval_cl.training.config import TrainingConfig

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"
DIRECTIONS = (TEXT_TO_IMAGE, IMAGE_TO_TEXT)
CUTS = (1, 5, 10)
METRICS = tuple(f"{metric}@{cut}" for metric in ("success", "recall") for cut in CUTS)
ZERO_SHOT = "zero_shot_accuracy"
_DEV_METRICS = (*(f"{part}_{metric}" for part in ("mean", *DIRECTIONS) for metric in METRICS), ZERO_SHOT)


class ImageTextTrainingConfig(TrainingConfig):
    """As for texts; by default one round on in-batch negatives, as CLIP is trained."""

    batch_size: int = Field(
        512, ge=2, description="pairs of image and caption in a step, mined ones included, over all ranks"
    )
    num_negatives: int = Field(
        0, ge=0, description="mined pairs or captions an image brings to a step, once a table is there"
    )
    rounds: int = Field(1, ge=1, description="rounds in all; without mining they only say how long")
    mined: Literal["pairs", "texts"] = Field(
        "pairs",
        description="pairs: a batch is made of clusters, an image and its mined pairs, all of them anchors; "
        "texts: mined captions join the batch as further negatives of images",
    )
    edits: int = Field(
        0,
        ge=0,
        le=16,
        description="edited captions an image brings as negatives of its own: two words swapped, or one "
        "replaced by a word met in the same places",
    )


class ProbeConfig(Settings):
    """Labelled images on which a fine-tuned model must stay as good at zero-shot classification as it was."""

    source: ImageSourceConfig = Field(description="the images, with classes")
    split: str = Field("test", description="split whose images are classified")
    max_images: int | None = Field(1000, ge=1, description="of them, a seeded sample; null: all")
    max_drop: float = Field(
        0.02, ge=0, le=1, description="accuracy that may be lost; weights that lost more are never kept"
    )


class ImageTextEvaluationConfig(Settings):
    """What is measured, retrieval both ways and zero-shot classification, and which weights are kept."""

    split: str = Field("test", description="split that is reported on; nothing is tuned on it")
    templates: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="prompts for the name of a class, each with one {}, whose vectors are averaged; null: "
        "'a photo of a {}.' and six more",
    )
    dev_images: int | None = Field(
        1000, ge=1, description="dev images measured while training runs, a seeded sample; null: all"
    )
    metric: str = Field(
        "mean_success@10",
        description="of dev, watched in training: text_to_image_, image_to_text_ or mean_ (of both) before "
        "success@k or recall@k, k 1, 5 or 10; or zero_shot_accuracy, where there are classes",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="weights kept at the end: those best on dev by metric, or those of the last step"
    )
    probe: ProbeConfig | None = Field(
        None, description="guards zero-shot accuracy while a pretrained model is fine-tuned; null: no guard"
    )

    @field_validator("metric")
    @classmethod
    def _metric_is_measured(cls, name: str) -> str:
        if name not in _DEV_METRICS:
            near = nearest_name(name, _DEV_METRICS)
            raise ValueError(f"metric '{name}': not measured{near}; valid: {', '.join(_DEV_METRICS)}")
        return name

    @model_validator(mode="after")
    def _templates_take_a_name(self) -> ImageTextEvaluationConfig:
        for template in self.templates or ():
            if template.count("{}") != 1:
                raise ValueError(f"templates: '{template}' has no place for a class; write {{}} once")
        if self.probe is not None and self.keep != "best":
            raise ValueError("probe has no effect with keep: last; set keep to best")
        return self

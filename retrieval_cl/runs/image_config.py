"""Settings of training and evaluation on images. Light: imported by the command line before any library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrieval_cl.settings import Settings
from retrieval_cl.training.config import TrainingConfig


class ImageTrainingConfig(TrainingConfig):
    """As for texts; by default one round on in-batch negatives, as the papers train."""

    num_negatives: int = Field(
        0, ge=0, description="mined negatives an image brings to a step, once a table is there"
    )
    rounds: int = Field(1, ge=1, description="rounds in all; without mining they only say how long")


class ImageEvaluationConfig(Settings):
    """What is measured of the features, on which images."""

    split: str = Field("test", description="split whose images are classified; the bank is split train")
    knn_k: int = Field(10, ge=1, le=10_000, description="neighbours that vote, by cosine")
    knn_temperature: float | None = Field(
        None, gt=0, description="votes weigh exp(cosine / this); null: each neighbour has one vote"
    )
    linear: bool = Field(True, description="also fit a linear classifier on the frozen features")
    dev_images: int | None = Field(
        2000,
        ge=1,
        description="labelled images of split dev, else of train, that are classified while training runs, "
        "a seeded sample; null: all",
    )
    keep: Literal["best", "last"] = Field(
        "last", description="weights kept at the end: those of the best kNN accuracy on dev, or the last"
    )

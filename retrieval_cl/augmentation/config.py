"""Settings of the augmentation: a published preset, and what is changed of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from retrieval_cl.augmentation.presets import PRESETS
from retrieval_cl.augmentation.recipe import Recipe
from retrieval_cl.core.errors import nearest_name
from retrieval_cl.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=2)]
# A setting that acts only where another, a probability, is above 0 in one of the views at least.
NEEDS = {
    "brightness": "jitter",
    "contrast": "jitter",
    "saturation": "jitter",
    "hue": "jitter",
    "blur_sigma": "blur",
    "blur_kernel": "blur",
    "solarize_threshold": "solarize",
}
STRENGTHS = ("brightness", "contrast", "saturation", "hue")
BY_VIEW = ("blur", "solarize")


class AugmentationConfig(Settings):
    """How two random views of an image are made. What is null is as the preset has it."""

    preset: str = Field(
        "simclr_cifar", description=f"a published recipe for both views: {', '.join(sorted(PRESETS))}"
    )
    crop_scale: tuple[float, float] | None = Field(
        None, description="least and greatest share of the area that is cut out and resized, such as [0.2, 1]"
    )
    crop_ratio: tuple[float, float] | None = Field(
        None, description="least and greatest width / height of what is cut out, such as [0.75, 1.33]"
    )
    flip: Share | None = Field(None, description="probability of a mirror image")
    rotation: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="turn by up to so many degrees either way, about the crop's centre"
    )
    shift: Share | None = Field(
        None, description="move by up to this share of the crop's sides either way; black comes in"
    )
    shear: Annotated[float, Field(ge=0, lt=90)] | None = Field(
        None, description="slant sideways by up to so many degrees either way"
    )
    jitter: Share | None = Field(None, description="probability that the colours are jittered at all")
    brightness: Strength | None = Field(None, description="factor from max(0, 1 - this) .. 1 + this")
    contrast: Strength | None = Field(None, description="factor from max(0, 1 - this) .. 1 + this")
    saturation: Strength | None = Field(None, description="factor from max(0, 1 - this) .. 1 + this")
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None, description="turn from -this .. this, in full circles of colour"
    )
    grey: Share | None = Field(None, description="probability that the colours are taken away")
    blur: tuple[Share, Share] | None = Field(
        None, description="probability of a Gaussian blur, of the first view and of the second"
    )
    blur_sigma: tuple[float, float] | None = Field(
        None, description="least and greatest sigma in pixels of the result, such as [0.1, 2]"
    )
    blur_kernel: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share of the side that the blur's kernel spans; 1: as far as sigma reaches"
    )
    solarize: tuple[Share, Share] | None = Field(
        None, description="probability that bright pixels are inverted, of the first view and the second"
    )
    solarize_threshold: Share | None = Field(None, description="pixels from here on are bright, of 0 .. 1")

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, name: str) -> str:
        if name not in PRESETS:
            valid = ", ".join(sorted(PRESETS))
            raise ValueError(f"'{name}': no such preset{nearest_name(name, PRESETS)}; valid: {valid}")
        return name

    @field_validator("crop_scale", "crop_ratio", "blur_sigma")
    @classmethod
    def _least_before_greatest(cls, found: tuple[float, float] | None) -> tuple[float, float] | None:
        if found is not None and not 0 < found[0] <= found[1]:
            raise ValueError(f"{list(found)}: give the least, above 0, then the greatest")
        return found

    @field_validator("crop_scale")
    @classmethod
    def _no_more_than_all(cls, found: tuple[float, float] | None) -> tuple[float, float] | None:
        if found is not None and found[1] > 1:
            raise ValueError(f"{list(found)}: shares of the area are at most 1")
        return found

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> AugmentationConfig:
        recipes = self.recipes()
        for key, needed in NEEDS.items():
            if getattr(self, key) is not None and not any(getattr(each, needed) for each in recipes):
                raise ValueError(f"{key}: {getattr(self, key)} has no effect with {needed}: 0")
        first = recipes[0]
        if self.jitter and not any(getattr(first, key) for key in STRENGTHS):
            raise ValueError(f"jitter: {self.jitter} has no effect with {', '.join(STRENGTHS)} all 0")
        if (self.saturation or self.hue) and first.grey == 1:
            raise ValueError("saturation and hue have no effect with grey: 1")
        return self

    def recipes(self) -> tuple[Recipe, Recipe]:
        """The numbers of the first view and of the second, the preset's where nothing else is set."""
        first, second = PRESETS[self.preset]
        return self._changed(first, 0), self._changed(second, 1)

    def _changed(self, recipe: Recipe, view: int) -> Recipe:
        given: dict[str, Any] = {key: value for key, value in self if key != "preset" and value is not None}
        for key in BY_VIEW:
            if key in given:
                given[key] = given[key][view]
        return replace(recipe, **given)

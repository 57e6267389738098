"""Settings of the methods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from retrieval_cl.methods import check_method_name
from retrieval_cl.settings import Settings


class MethodConfig(Settings):
    """Which method is trained, and how its anchors meet their candidates."""

    name: str = Field("dual_encoder", description="file in retrieval_cl/methods")
    temperature: float = Field(
        0.05, gt=0, le=10, description="cosines are divided by it; where learned, its start"
    )
    learned_temperature: bool = Field(False, description="train the temperature, within 0.01 .. 1")
    symmetric: bool = Field(
        False, description="average with the reverse direction: each positive against all anchors"
    )
    negatives: Literal["shared", "private"] = Field(
        "shared",
        description="shared: an anchor sees the mined negatives of the whole batch; private: only its own",
    )
    in_batch: bool = Field(
        True, description="other anchors' positives are negatives; false: only its own mined ones are"
    )
    loss_precision: Literal["fp32", "bf16"] = Field("fp32", description="type of the loss's matrix products")

    @field_validator("name")
    @classmethod
    def _name_is_a_file(cls, name: str) -> str:
        return check_method_name(name)

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> MethodConfig:
        if self.learned_temperature and not 0.01 <= self.temperature <= 1:
            raise ValueError(f"temperature {self.temperature}: a learned temperature stays within 0.01 .. 1")
        if "negatives" in self.model_fields_set and self.negatives == "shared" and not self.in_batch:
            raise ValueError(
                "negatives: shared has no effect with in_batch: false (an anchor sees only its own)"
            )
        if self.symmetric and not self.in_batch:
            raise ValueError(
                "symmetric: true has no effect with in_batch: false (no anchor meets another's positive)"
            )
        return self

"""Settings of the methods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_cl.methods import check_method_name
from retrieval_cl.settings import Settings


class GuardConfig(Settings):
    """Candidates that are ignored as likely positives: those that score too near the anchor's own."""

    fraction: float | None = Field(
        None,
        gt=0,
        le=2,
        description="ignore candidates above this fraction of the positive's cosine (0.95), safe below 0",
    )
    margin: float | None = Field(
        None,
        ge=-2,
        le=2,
        description="ignore candidates above the positive's cosine plus this; may be below 0",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> GuardConfig:
        if (self.fraction is None) == (self.margin is None):
            raise ValueError("set one of fraction and margin")
        return self


class MatryoshkaConfig(Settings):
    """Vectors that can be cut short: the loss is also taken on their first coordinates."""

    dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1,
        description="lengths of the prefixes in coordinates, such as [256, 128, 64]; name the full one too",
    )
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="of each length, divided by their sum; null: equal"
    )

    @model_validator(mode="after")
    def _each_length_once(self) -> MatryoshkaConfig:
        if len(set(self.dims)) < len(self.dims):
            raise ValueError(f"dims {list(self.dims)}: a length stands twice")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ValueError(f"{len(self.weights)} weights for {len(self.dims)} dims; give one a length")
        return self


class MethodConfig(Settings):
    """Which method is trained, and how its anchors meet their candidates."""

    name: str = Field("dual_encoder", description="file in retrieval_cl/methods")
    temperature: float = Field(
        0.05, gt=0, le=10, description="cosines are divided by it; where learned, its start"
    )
    learned_temperature: bool = Field(False, description="train the temperature, within 0.01 .. 1")
    objective: Literal["info_nce", "sigmoid"] = Field(
        "info_nce", description="info_nce: choose the positive among all; sigmoid: judge every pair by itself"
    )
    bias: float = Field(
        -10.0,
        ge=-100,
        le=100,
        description="start of the learned number that is added to every logit; sigmoid alone has one",
    )
    positives: Literal["target", "mean", "sum"] = Field(
        "target",
        description="target: a query's other positives in the batch are left out; mean: each has its own "
        "loss; sum: they share one",
    )
    decoupled: bool = Field(False, description="the positive is not in the denominator (info_nce)")
    hardness: float = Field(
        0.0, ge=0, le=10, description="beta: negatives weigh exp(beta * logit); 0: all alike (info_nce)"
    )
    debias: float = Field(
        0.0, ge=0, le=0.5, description="tau+: expected share of false negatives, corrected for (info_nce)"
    )
    guard: GuardConfig | None = Field(
        None, description="ignores candidates that score too near the positive; null: none"
    )
    matryoshka: MatryoshkaConfig | None = Field(
        None, description="train prefixes of the vectors as well; null: whole vectors alone"
    )
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
    memory: int = Field(
        0,
        ge=0,
        description="passages of past steps that are negatives too, the newest so many rows; 0: none",
    )
    memory_start: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of all steps before passages are remembered: early vectors age fast",
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
        if self.objective == "sigmoid":
            idle = [key for key in ("symmetric", "decoupled", "hardness", "debias") if getattr(self, key)]
            if idle:
                raise ValueError(f"{idle[0]}: {getattr(self, idle[0])} has no effect with objective: sigmoid")
            if self.positives == "mean":
                raise ValueError("positives: mean is not known to objective: sigmoid; valid: target, sum")
        elif "bias" in self.model_fields_set:
            raise ValueError("bias has no effect with objective: info_nce")
        if self.memory_start and not self.memory:
            raise ValueError(f"memory_start: {self.memory_start} has no effect with memory: 0")
        return self

    @model_validator(mode="after")
    def _own_negatives_alone(self) -> MethodConfig:
        if self.in_batch:
            return self
        if "negatives" in self.model_fields_set and self.negatives == "shared":
            raise ValueError(
                "negatives: shared has no effect with in_batch: false (an anchor sees only its own)"
            )
        if self.symmetric:
            raise ValueError(
                "symmetric: true has no effect with in_batch: false (no anchor meets another's positive)"
            )
        if self.positives != "target":
            raise ValueError(
                f"positives: {self.positives} has no effect with in_batch: false (an anchor has no other)"
            )
        if self.memory:
            raise ValueError(
                f"memory: {self.memory} has no effect with in_batch: false (an anchor sees only its own)"
            )
        return self

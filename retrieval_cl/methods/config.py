"""Settings of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_cl.encoders.head_config import HeadConfig, HeadPreset
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


_CHOICE = ("decoupled", "hardness", "debias", "guard", "loss_precision")
_SCALE = ("temperature", "learned_temperature")
_IMAGES = ("projector", "norm", "split_batches", "views_together")
_TWIN = ("momentum", "momentum_schedule", "predictor", "loss_factor")

READS: Mapping[str, tuple[str, ...]] = {
    "dual_encoder": (
        *("objective", "bias", "positives", "matryoshka", "symmetric", "negatives", "in_batch"),
        *("memory", "memory_start", *_SCALE, *_CHOICE),
    ),
    "simclr": ("negatives", *_SCALE, *_CHOICE, *_IMAGES),
    "moco": ("queue", "in_batch_keys", "symmetric", "negatives", *_SCALE, *_CHOICE, *_IMAGES, *_TWIN),
    "byol": (*_IMAGES, *_TWIN),
    "clip": ("objective", "bias", "positives", "negatives", *_SCALE, *_CHOICE),
}
"""Method -> the settings it reads, beside its name; others are refused. Here, where no library is loaded."""

IMAGE_METHODS = tuple(name for name, keys in READS.items() if set(_IMAGES) <= set(keys))
"""Those that learn from images alone."""

IMAGE_TEXT_METHODS = ("clip",)
"""Those that learn from images and their texts."""

PRESETS: Mapping[str, Mapping[str, HeadPreset]] = {
    "simclr": {"projector": "simclr_v1"},
    "moco": {"projector": "moco_v2", "predictor": "moco_v3_predictor"},
    "byol": {"projector": "byol", "predictor": "byol"},
}
"""Method -> the published head that one of its heads departs from where it names none."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "simclr": {"temperature": 0.5, "projector": HeadConfig(preset="simclr_v1")},
    "moco": {"temperature": 0.2, "projector": HeadConfig(preset="moco_v2")},
    "byol": {
        "momentum": 0.99,
        "momentum_schedule": "cosine",
        "loss_factor": 2.0,
        "projector": HeadConfig(preset="byol"),
        "predictor": HeadConfig(preset="byol"),
    },
    "clip": {"temperature": 0.07, "learned_temperature": True},
}
"""Method -> defaults of its own, where papers differ."""

SIGMOID_TEMPERATURES: Mapping[str, float] = {"clip": 0.1}
"""Method -> its default temperature with objective: sigmoid, where that has one of its own."""


class MethodConfig(Settings):
    """Which method is trained, and how its anchors meet their candidates.

    A setting that the method does not read is refused. Some defaults depend on the method, see `DEFAULTS`.
    """

    name: str = Field("dual_encoder", description="file in retrieval_cl/methods")
    temperature: float = Field(
        0.05,
        gt=0,
        le=10,
        description="cosines are divided by it; where learned, its start (simclr: 0.5, moco: 0.2, clip: what "
        "its model learned, else 0.07, or 0.1 with sigmoid)",
    )
    learned_temperature: bool = Field(
        False, description="train the temperature, within 0.01 .. 1 (default in clip: true)"
    )
    objective: Literal["info_nce", "sigmoid"] = Field(
        "info_nce", description="info_nce: choose the positive among all; sigmoid: judge every pair by itself"
    )
    bias: float = Field(
        -10.0,
        ge=-100,
        le=100,
        description="start of the learned number that is added to every logit; sigmoid alone has one (clip: "
        "what its model learned, else -10)",
    )
    positives: Literal["target", "mean", "sum"] = Field(
        "target",
        description="target: an anchor's other positives in the batch are left out; mean: each has its own "
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
        False,
        description="average with the reverse direction: dual_encoder: each positive against all anchors; "
        "moco: view b asks too",
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
    queue: int = Field(
        65536,
        ge=0,
        description="keys of past steps that are negatives, the newest so many rows; 0: none (moco)",
    )
    in_batch_keys: bool = Field(
        False, description="the keys of the other images of a step are negatives too (moco)"
    )
    momentum: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="share of the slow twin that a step keeps, at the start (default in byol: 0.99)",
    )
    momentum_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: momentum rises to 1 over the run (default in byol)"
    )
    loss_factor: float = Field(
        1.0,
        gt=0,
        le=100,
        description="the loss, a mean over both directions, is multiplied by it; 2: their sum (default in "
        "byol); MoCo v3: 4 times the temperature",
    )
    projector: HeadConfig = Field(
        default_factory=HeadConfig,
        description="head behind the encoder while it trains (default in moco: moco_v2, in byol: byol)",
    )
    predictor: HeadConfig | None = Field(
        None,
        description="head behind the projector, not in the slow twin; null: none (default in byol: byol)",
    )
    norm: Literal["batch", "split", "sync"] = Field(
        "batch",
        description="whose statistics BatchNorm takes: batch: of the rows of a process; split: of groups of "
        "them, as if on several devices; sync: of the rows of all processes",
    )
    split_batches: int = Field(8, ge=2, description="groups of rows in a pass (norm: split)")
    views_together: bool = Field(
        False, description="both views pass the encoder as one batch, and share BatchNorm's statistics"
    )

    @model_validator(mode="before")
    @classmethod
    def _heads_depart_from_the_methods_own(cls, values: Any) -> Any:
        name = values.get("name") if isinstance(values, dict) else None
        own = PRESETS.get(name, {}) if isinstance(name, str) else {}
        heads = {
            key: {"preset": preset, **values[key]}
            for key, preset in own.items()
            if isinstance(values.get(key), dict)
        }
        return {**values, **heads} if heads else values

    @field_validator("name")
    @classmethod
    def _name_is_a_file(cls, name: str) -> str:
        return check_method_name(name)

    @model_validator(mode="after")
    def _method_reads_its_settings(self) -> MethodConfig:
        if self.name not in READS:
            raise ValueError(
                f"methods/{self.name}.py has no line in READS, methods/config.py, on what it reads"
            )
        for key in sorted(self.model_fields_set - {"name", *READS[self.name]}):
            readers = [name for name, keys in READS.items() if key in keys]
            raise ValueError(f"{key} has no effect in method {self.name}; it is read by {', '.join(readers)}")
        defaults = dict(DEFAULTS.get(self.name, {}))
        if self.objective == "sigmoid" and self.name in SIGMOID_TEMPERATURES:
            defaults["temperature"] = SIGMOID_TEMPERATURES[self.name]
        for key, value in defaults.items():
            if key not in self.model_fields_set:
                # Not as a setting: what nobody set is not written into a saved config.
                self.__dict__[key] = value
        return self

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
        if "split_batches" in self.model_fields_set and self.norm != "split":
            raise ValueError(f"split_batches: {self.split_batches} has no effect with norm: {self.norm}")
        if self.name == "moco" and not (self.queue or self.in_batch_keys):
            raise ValueError(
                "queue: 0 leaves a query no negative; set in_batch_keys to true, as MoCo v3 does"
            )
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

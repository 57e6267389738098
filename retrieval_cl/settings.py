"""The base of every config model: frozen, unknown keys are errors. Each stands beside its owner."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen pydantic model that forbids extra keys; every field is described with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

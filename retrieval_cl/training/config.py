"""Settings of training: how long, how fast, how often to look."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_cl.settings import Settings

# Settings that mean nothing where no round is mined for.
REMINING = {
    "remine_every",
    "probe_queries",
    "probe_passages",
    "probe_every",
    "min_overlap",
    "refresh",
    "background",
    "swap_after",
    "background_threads",
}
# Which optimisers each of these settings is of.
OPTIMIZER_SETTINGS = {
    "momentum": ("sgd", "lars"),
    "betas": ("adamw",),
    "adam_eps": ("adamw",),
    "lars_eta": ("lars",),
    "lars_clip": ("lars",),
}


class TrainingConfig(Settings):
    """How a method is trained. A round is: mine once, then train on that fixed table of negatives."""

    seed: int = Field(0, ge=0, lt=2**32, description="of batches, dropout and mining")
    batch_size: int = Field(512, ge=2, description="anchors of a step, over all ranks")
    num_negatives: int = Field(
        4, ge=0, description="mined negatives an anchor brings to a step, once a table is there"
    )

    rounds: int = Field(3, ge=1, description="rounds in all; round 0 trains on in-batch negatives alone")
    first_mined_round: int = Field(
        1,
        ge=0,
        description="first round that is mined for; 0: mine before any training (pretrained encoders)",
    )
    epochs_per_round: float = Field(1.0, gt=0, description="passes over the training pairs in a round")
    first_round_epochs: float | None = Field(
        None, gt=0, description="passes in round 0; null: as in every other round"
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="optimiser steps in all, spread evenly over the rounds; null: counted from the epochs",
    )

    remine_every: int | None = Field(
        None,
        ge=1,
        description="steps that a table of mined negatives is used for: rounds from first_mined_round on "
        "have so many; null: rounds are as long as epochs or steps make them",
    )
    probe_queries: int = Field(
        256, ge=1, description="train queries, drawn with the seed, that are searched again to see drift"
    )
    probe_passages: int | None = Field(
        None,
        ge=1,
        description="passages, drawn with the seed, among which they are searched; null: all that are mined",
    )
    probe_every: int | None = Field(
        None, ge=1, description="steps from one look for drift to the next; null: only where it is mined"
    )
    min_overlap: float | None = Field(
        None,
        gt=0,
        le=1,
        description="where a look finds less than this share of the former top hits again, a new table is "
        "mined then; null: the period alone decides",
    )
    refresh: Literal["all", "candidates"] = Field(
        "all",
        description="passages that a mining embeds anew: all; or those that their vectors so far rank among "
        "the first mining.depth of a query, while others keep theirs: equal up to a tolerance only, and the "
        "log tells what it loses",
    )
    background: bool = Field(
        False, description="a process of its own mines with a snapshot of the weights while training goes on"
    )
    swap_after: int | None = Field(
        None,
        ge=1,
        description="steps from the snapshot to the step that its table is used from; training waits for it",
    )
    background_threads: int = Field(1, ge=1, description="CPU threads of the process that mines")

    optimizer: Literal["adamw", "sgd", "lars"] = Field(
        "adamw",
        description="sgd: with momentum; lars: momentum with a rate for each layer, for large batches",
    )
    lr: float = Field(1e-3, gt=0, le=10, description="peak learning rate; see lr_reference_batch")
    lr_reference_batch: int | None = Field(
        None,
        ge=1,
        description="anchors of a step for which lr is meant: the peak rate is lr * batch_size / this (the "
        "linear rule; papers mean 256); null: it is lr for any batch",
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="of sgd and lars: share of the last step's direction"
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="of adamw: how slowly its means of gradients and of their squares forget"
    )
    adam_eps: float = Field(1e-8, gt=0, le=1, description="of adamw: added to the root of the mean square")
    lars_eta: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="of lars: trust coefficient, a layer's rate is lr * this * |w| / |update|",
    )
    lars_clip: bool = Field(
        False,
        description="of lars: a layer's rate is min(lars_eta * |w| / |update|, lr), as solo-learn's",
    )
    temperature_lr: float | None = Field(
        None, gt=0, le=10, description="peak rate of a learned temperature; null: that of the rest"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="course of the rate after warm-up"
    )
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="share of all steps in which the rate rises from 0"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="of what decays says")
    decays: Literal["matrices", "all"] = Field(
        "matrices",
        description="matrices: norms and biases do not decay; all: they do, as in SGD recipes (MoCo, CIFAR); "
        "a temperature never does",
    )
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="gradients are scaled down to this norm; null: never"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the encoder's products; auto: bf16 where the processor has units for it"
    )

    chunk_tokens: int | Literal["auto"] | None = Field(
        None,
        description="a batch is embedded in chunks of at most so many tokens, padding included, and the loss "
        "still sees the whole batch (gradient cache); auto: the whole batch, halved while memory is short; "
        "null: in one piece",
    )
    graph_tokens: int | None = Field(
        None,
        ge=0,
        description="so many tokens of a batch are embedded once, the others twice; null: chunk_tokens, "
        "which takes no more memory than a chunk; more is faster, and takes more",
    )

    log_every: int = Field(10, ge=1, description="steps from one line of metrics to the next")
    health_every: int = Field(50, ge=1, description="steps from one look for collapse to the next")
    eval_every: int | None = Field(
        None, ge=1, description="steps from one evaluation to the next; null: at rounds' ends"
    )
    eval_at_start: bool = Field(True, description="evaluate before the first step as well")
    save_every: int | None = Field(
        None, ge=1, description="steps from one checkpoint to the next; null: at rounds' ends"
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")

    @property
    def peak_lr(self) -> float:
        """The peak rate of all but a temperature that has its own."""
        reference = self.lr_reference_batch
        return self.lr if reference is None else self.lr * self.batch_size / reference

    @field_validator("chunk_tokens", mode="before")
    @classmethod
    def _tokens_or_auto(cls, value: Any) -> Any:
        # pydantic names the branches of a union, and only the first of its complaints would be told.
        if value in (None, "auto") or (type(value) is int and value >= 1):
            return value
        raise ValueError(f"training.chunk_tokens is {value!r}; expected a whole number from 1, auto or null")

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> TrainingConfig:
        epochs = {"epochs_per_round", "first_round_epochs"} & self.model_fields_set
        if self.steps is not None and epochs:
            raise ValueError(f"{', '.join(sorted(epochs))} has no effect beside steps; set one of them")
        if self.graph_tokens is not None and not isinstance(self.chunk_tokens, int):
            raise ValueError(
                f"graph_tokens has no effect with chunk_tokens {self.chunk_tokens or 'null'}; "
                "set chunk_tokens to a number"
            )
        if self.rounds == 1 and self.first_round_epochs is not None:
            raise ValueError("first_round_epochs has no effect with one round; set epochs_per_round")
        if self.steps is not None and self.steps < self.rounds:
            raise ValueError(f"steps {self.steps} are fewer than rounds {self.rounds}")
        return self

    @field_validator("betas")
    @classmethod
    def _betas_are_shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"training.betas are {list(value)}; expected two numbers from 0 to below 1")
        return value

    @model_validator(mode="after")
    def _optimizer_has_its_settings(self) -> TrainingConfig:
        for name, users in OPTIMIZER_SETTINGS.items():
            if (
                self.optimizer not in users
                and getattr(self, name) != TrainingConfig.model_fields[name].default
            ):
                raise ValueError(
                    f"{name} has no effect with optimizer {self.optimizer}; it is of {' and '.join(users)}"
                )
        if self.decays == "all" and self.optimizer == "lars":
            raise ValueError(
                "decays 'all' has no effect with optimizer lars, which leaves norms and biases out"
            )
        if self.decays == "all" and self.weight_decay == 0:
            raise ValueError("decays has no effect: weight_decay is 0")
        return self

    @model_validator(mode="after")
    def _remining_has_an_effect(self) -> TrainingConfig:
        idle = sorted(_changed(self))
        mines = self.first_mined_round < self.rounds and self.num_negatives > 0
        if idle and not mines:
            raise ValueError(
                f"{idle[0]} has no effect: no round is mined for (rounds {self.rounds}, first_mined_round "
                f"{self.first_mined_round}, num_negatives {self.num_negatives})"
            )
        if self.min_overlap is not None and None in (self.probe_every, self.remine_every):
            raise ValueError(
                "min_overlap needs probe_every, when to look, and remine_every, when to mine anyhow"
            )
        if self.min_overlap is not None and (self.probe_every or 0) >= (self.remine_every or 1):
            raise ValueError(
                f"min_overlap has no effect: probe_every {self.probe_every} is not below remine_every "
                f"{self.remine_every}"
            )
        needless = {"rounds"} & self.model_fields_set if self.rounds > 1 else set()
        if needless and None not in (self.steps, self.remine_every) and self.first_mined_round == 0:
            raise ValueError(
                "rounds has no effect: steps say how long, remine_every how often; remove it, or set it to 1"
            )
        return self

    @model_validator(mode="after")
    def _refresh_can_be_measured(self) -> TrainingConfig:
        if self.refresh == "candidates" and self.probe_passages is None:
            raise ValueError(
                "refresh 'candidates' needs probe_passages: among so many it is compared with refresh 'all'"
            )
        if self.refresh == "candidates" and self.background:
            raise ValueError("refresh 'candidates' does not go with background; set one of them")
        return self

    @model_validator(mode="after")
    def _swap_goes_with_background(self) -> TrainingConfig:
        if self.background and self.swap_after is None:
            raise ValueError("background needs swap_after, the steps until the new table is used")
        for name in ("swap_after", "background_threads"):
            if not self.background and name in _changed(self):
                raise ValueError(f"{name} has no effect without background; set background to true")
        return self


def _changed(config: TrainingConfig) -> set[str]:
    fields = TrainingConfig.model_fields
    return {name for name in REMINING if getattr(config, name) != fields[name].default}

"""Settings of the miner: how deep to search, which candidates to refuse, how to draw from the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings


class MiningConfig(Settings):
    """How hard negatives are found, filtered and drawn."""

    factory: str | None = Field(
        None,
        description="FAISS factory string of the index that is searched, e.g. 'HNSW32'; null: exact search",
    )
    candidates: Literal["all", "train"] = Field(
        "all",
        description="passages that are searched: the whole corpus, or those of train pairs alone, for data "
        "whose splits have passages of their own: others would be met as negatives only",
    )
    depth: int = Field(100, ge=1, description="candidates searched per query, in passages")
    rank_min: int = Field(
        0, ge=0, description="first rank that may be drawn, 0 = best hit, counted before any filter"
    )
    rank_max: int | None = Field(
        None, ge=1, description="rank from which nothing is drawn, counted before any filter; null: depth"
    )
    max_score: float | None = Field(
        None, description="greatest score of a negative (cosine, or the reranker's)"
    )
    min_score: float | None = Field(None, description="least score of a negative (cosine, or the reranker's)")
    margin: float | None = Field(
        None, ge=0, description="a negative scores at most the positive's score minus this (score units)"
    )
    relative_margin: float | None = Field(
        0.05,
        ge=0,
        description="a negative scores at most the positive's score less this share of it, 0.05: percpos 95",
    )
    positive: Literal["weakest", "strongest"] = Field(
        "weakest", description="which positive of a query the two margins are measured from"
    )
    sampling: Literal["top", "uniform", "weighted"] = Field(
        "top", description="draw the hardest, uniformly, or with weight exp(score / temperature)"
    )
    temperature: float | None = Field(
        None, gt=0, description="temperature of 'weighted' sampling (score units)"
    )
    num_negatives: int = Field(4, ge=1, description="negatives drawn per query")
    shortage: Literal["fewer", "random"] = Field(
        "fewer",
        description="where too few candidates are left: leave the places empty, or fill with random passages",
    )

    @property
    def last_rank(self) -> int:
        """The rank from which nothing is drawn, with the default filled in."""
        return self.depth if self.rank_max is None else self.rank_max

    @model_validator(mode="after")
    def _window_lies_in_depth(self) -> MiningConfig:
        if self.last_rank > self.depth:
            raise ValueError(
                f"rank_max {self.rank_max} lies beyond depth {self.depth}; raise depth or lower rank_max"
            )
        if self.last_rank <= self.rank_min:
            raise ValueError(f"rank_max {self.last_rank} must be greater than rank_min {self.rank_min}")
        if self.last_rank - self.rank_min < self.num_negatives:
            raise ValueError(
                f"ranks {self.rank_min} up to {self.last_rank} hold fewer passages than "
                f"num_negatives {self.num_negatives}; widen the window or ask for fewer"
            )
        return self

    @model_validator(mode="after")
    def _scores_leave_room(self) -> MiningConfig:
        if self.max_score is not None and self.min_score is not None and self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is greater than max_score {self.max_score}")
        return self

    @model_validator(mode="after")
    def _temperature_goes_with_weighted(self) -> MiningConfig:
        if self.sampling == "weighted" and self.temperature is None:
            raise ValueError("sampling 'weighted' needs a temperature, e.g. 0.05")
        if self.sampling != "weighted" and self.temperature is not None:
            raise ValueError(
                f"temperature has no effect with sampling '{self.sampling}'; set sampling to 'weighted'"
            )
        return self

"""Settings of the miner: how deep to search, which candidates to refuse, how to draw from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval_cl.mining.names import Source
from retrieval_cl.settings import Settings


class Quota(Settings):
    """What one source of candidates gives. A bare number n stands for least = most = n."""

    least: int = Field(0, ge=0, description="places of a query it gets before other sources, where it can")
    most: int | None = Field(None, ge=0, description="places of a query it may fill; null: all")
    candidates: int | None = Field(
        None, ge=1, description="candidates taken from its list, the best first; null: all"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return {"least": value, "most": value} if is_number else value

    @model_validator(mode="after")
    def _limits_something(self) -> Quota:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}")
        if (self.least, self.most, self.candidates) == (0, None, None):
            raise ValueError("the quota has no effect; set least, most or candidates")
        return self


class MiningConfig(Settings):
    """How hard negatives are found, filtered and drawn."""

    factory: str | None = Field(
        None,
        description="FAISS factory string of the index that is searched, e.g. 'HNSW32'; null: exact search",
    )
    target_recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="least recall@depth of that index against exact search, 0 to 1: it is searched as widely "
        "as that takes, and refused where it cannot reach it; null: as FAISS sets it, and measured alone",
    )
    candidates: Literal["all", "train"] = Field(
        "all",
        description="passages that are searched: the whole corpus, or those of train pairs alone, for data "
        "whose splits have passages of their own: others would be met as negatives only",
    )
    depth: int = Field(100, ge=1, description="candidates searched per query, in passages")
    quotas: Mapping[Source, Quota] = Field(
        {},
        description="source -> places that it fills, such as {lexical: 2, random: 1}; the other places go to "
        "the best candidates of all sources",
    )
    second_model: str | None = Field(
        None,
        min_length=1,
        description="folder or id of a second encoder, whose own search gives candidates of source 'second'",
    )
    reranker: str | None = Field(
        None,
        min_length=1,
        description="folder or id of a cross-encoder; its scores take the place of the cosines in "
        "thresholds and sampling, and go into the table",
    )
    near_text: float | None = Field(
        None,
        gt=0,
        le=1,
        description="a candidate is refused whose text has this Jaccard similarity, or more, of "
        "word 3-shingles with a positive of its query",
    )
    near_vector: float | None = Field(
        None,
        gt=-1,
        le=1,
        description="a candidate is refused whose vector has this cosine, or more, with a positive's vector",
    )
    rank_min: int = Field(
        0,
        ge=0,
        description="first rank that may be drawn, 0 = best hit, counted before any filter in each source's "
        "own list",
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
    shortage: Literal["fewer", "widen", "random"] = Field(
        "fewer",
        description="where too few candidates are left: leave the places empty, search those queries again "
        "and deeper (rank_max moves along), or fill with random passages",
    )
    widest: int | None = Field(
        None, ge=1, description="depth up to which shortage 'widen' searches, in passages"
    )

    @property
    def last_rank(self) -> int:
        """The rank from which nothing is drawn, with the default filled in."""
        return self.depth if self.rank_max is None else self.rank_max

    @property
    def source_quotas(self) -> dict[str, Quota]:
        """The quotas, by any name of a source."""
        return {str(source): quota for source, quota in self.quotas.items()}

    @property
    def num_random(self) -> int:
        """Places of each query that are kept for random passages."""
        quota = self.quotas.get("random")
        return 0 if quota is None else quota.least

    def _longest(self, source: Source, quota: Quota) -> int:
        """Candidates of a query that a source's list can hold, as far as the settings tell."""
        given = self.num_negatives if source == "previous" else self.depth
        return given if quota.candidates is None else min(given, quota.candidates)

    @model_validator(mode="after")
    def _target_goes_with_an_index(self) -> MiningConfig:
        if self.target_recall is not None and self.factory is None:
            raise ValueError(
                f"target_recall {self.target_recall:g} has no effect on exact search; "
                "set factory, as to 'auto'"
            )
        return self

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

    @model_validator(mode="after")
    def _widest_goes_with_widen(self) -> MiningConfig:
        if self.shortage == "widen" and self.widest is None:
            raise ValueError(f"shortage 'widen' needs widest, a depth above {self.depth}")
        if self.shortage != "widen" and self.widest is not None:
            raise ValueError(f"widest has no effect with shortage '{self.shortage}'; set shortage to 'widen'")
        if self.widest is not None and self.widest <= self.depth:
            raise ValueError(f"widest {self.widest} must be greater than depth {self.depth}")
        return self

    @model_validator(mode="after")
    def _quotas_fit(self) -> MiningConfig:
        wanted = sum(quota.least for quota in self.quotas.values())
        if wanted > self.num_negatives:
            raise ValueError(f"quotas want {wanted} places; num_negatives is {self.num_negatives}")
        dense, random = self.quotas.get("dense"), self.quotas.get("random")
        if dense is not None and dense.candidates is not None:
            raise ValueError("quotas.dense.candidates: set depth, which is the same")
        for source, quota in self.quotas.items():
            longest = self._longest(source, quota)
            if source != "random" and longest <= self.rank_min:
                raise ValueError(
                    f"quotas.{source} has no effect: its list holds {longest} candidates a query, all before "
                    f"rank_min {self.rank_min}; lower that, or remove the quota"
                )
        if random is not None and random.candidates is not None:
            raise ValueError("quotas.random.candidates has no effect: random passages are drawn, not found")
        if random is not None and random.least == 0:
            raise ValueError("quotas.random without a least has no effect; set it to 1 or more, or remove it")
        if random is not None and random.most != random.least and self.shortage != "random":
            raise ValueError("quotas.random: give a number; more than that comes with shortage 'random' only")
        if random is not None and random.most is not None and self.shortage == "random":
            raise ValueError(
                "quotas.random bounds the random passages that shortage 'random' asks for; "
                f"give {{least: {random.least}}}, or another shortage"
            )
        return self

"""Quotas: how many places of a query each source of candidates gets before others, and may fill at most."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.config import Quota
from retrieval_cl.mining.names import SOURCES
from retrieval_cl.mining.rules import Candidates


@final
@dataclass(frozen=True, eq=False)
class Limits:
    """Bounds by place in `SOURCES`, on the places of one query."""

    least: Int64[np.ndarray, " S"]
    most: Int64[np.ndarray, " S"]

    @classmethod
    def from_quotas(cls, quotas: Mapping[str, Quota], *, num_negatives: int) -> Limits:
        """A source without a quota has no bounds."""
        given = [quotas.get(source, Quota.model_construct()) for source in SOURCES]
        return cls(
            np.array([quota.least for quota in given], dtype=np.int64),
            np.array([num_negatives if quota.most is None else quota.most for quota in given]),
        )

    def apply(
        self, candidates: Candidates, keys: Float64[np.ndarray, "Q K"]
    ) -> tuple[Candidates, Bool[np.ndarray, "Q K"]]:
        """The candidates without those beyond what their source may fill; and which of them go first."""
        place = place_in_source(candidates, keys)
        kept = candidates.kept & (place < self.most[candidates.sources])
        return replace(candidates, kept=kept), kept & (place < self.least[candidates.sources])


def place_in_source(candidates: Candidates, keys: Float64[np.ndarray, "Q K"]) -> Int64[np.ndarray, "Q K"]:
    """Place of each kept candidate among those of its query and source, by greatest key, then row."""
    order = np.lexsort((candidates.rows, -keys, ~candidates.kept, candidates.sources), axis=-1)
    source = np.take_along_axis(candidates.sources, order, axis=1)
    columns = np.broadcast_to(np.arange(source.shape[1]), source.shape)
    is_first = np.ones(source.shape, dtype=bool)
    is_first[:, 1:] = source[:, 1:] != source[:, :-1]
    first = np.maximum.accumulate(np.where(is_first, columns, 0), axis=1)
    places = np.empty_like(order)
    np.put_along_axis(places, order, columns - first, axis=1)
    return places


def shorten(extra: Mapping[str, Hits], quotas: Mapping[str, Quota]) -> dict[str, Hits]:
    """The lists, each cut to the candidates that its quota takes."""
    wanted = {name: quota.candidates for name, quota in quotas.items()}
    return {name: hits.top(wanted.get(name) or hits.rows.shape[1]) for name, hits in extra.items()}


def check_quotas(quotas: Mapping[str, Quota], *, extra: Collection[str]) -> None:
    """Raises InputError where a quota is set for a source that gives no candidates.

    Args:
        quotas: by source.
        extra: the sources that there are beside the dense search and chance.
    """
    there = [source for source in SOURCES if source in ("dense", "random", *extra)]
    if missing := [source for source in quotas if source not in there]:
        raise InputError(
            f"mining.quotas.{missing[0]}: nothing gives candidates of source '{missing[0]}' here"
            f"{_GIVEN_BY[missing[0]]}; sources here: {', '.join(there)}"
        )


_GIVEN_BY = {
    "lexical": " (it needs texts)",
    "second": ", set mining.second_model",
    "previous": " (only training in rounds has an older table)",
    "given": " (the data name no negatives)",
    "other": " (only a caller in Python gives such a list)",
}

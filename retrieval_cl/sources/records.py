"""What every text source gives: passages, queries and graded judgements, all by int64 row number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with their string ids; the row number is the int64 id used everywhere else.

    Attributes:
        ids: the ids in the files, distinct.
        texts: never empty.
        titles: "" where there is none.
    """

    ids: list[str]
    texts: list[str]
    titles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.titles:
            object.__setattr__(self, "titles", [""] * len(self.ids))
        assert len(self.ids) == len(self.texts) == len(self.titles)

    def __len__(self) -> int:
        return len(self.ids)

    def full(self) -> list[str]:
        """Title and text of each row, as they are embedded and searched: `title + newline + text`."""
        return [
            f"{title}\n{text}" if title else text for title, text in zip(self.titles, self.texts, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Qrels:
    """Graded judgements of one split: query row, passage row, grade (relevant from 1 on).

    Sorted by query row, then passage row; a pair stands once.
    """

    queries: Int64[np.ndarray, " J"]
    passages: Int64[np.ndarray, " J"]
    grades: Int64[np.ndarray, " J"]

    @property
    def judged_queries(self) -> Int64[np.ndarray, " Q"]:
        """The distinct query rows of this split with at least one relevant passage, ascending."""
        return np.unique(self.queries[self.grades >= 1])

    def relevant(self, num_queries: int) -> Ragged:
        """Query row -> relevant passage rows."""
        keep = self.grades >= 1
        return Ragged.from_pairs(self.queries[keep], self.passages[keep], num_queries)


@dataclass(frozen=True, eq=False)
class RetrievalData:
    """One retrieval data set in memory.

    Attributes:
        name: for tables and manifests.
        passages: the corpus, of all splits.
        queries: of all splits.
        splits: split name ("train", "dev", "test") -> judgements.
        equal: passage row -> rows that are the same item for every purpose (copies of one text or body),
            itself included; they are mutually known and never each other's negatives. None: no copies.
        given_negatives: query row -> passage rows the data itself names as negatives; None: none given.
        made_by: how it was made (source, versions, counts), for manifests.
    """

    name: str
    passages: Texts
    queries: Texts
    splits: Mapping[str, Qrels]
    equal: Ragged | None = None
    given_negatives: Ragged | None = None
    made_by: Mapping[str, object] = field(default_factory=dict)

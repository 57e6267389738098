"""Data made ready for training: token ids of all texts, and which texts are the same item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.table import SOURCES, NegativeTable
from retrieval_cl.sources.normalise import passage_groups, query_groups
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts
from retrieval_cl.sources.text_pairs import TextPairs


@final
@dataclass(frozen=True, eq=False)
class PreparedText:
    """A data set as one encoder's tokens. Runs with the same tokenizer can share it.

    Attributes:
        query_tokens: of all queries, of all splits.
        passage_tokens: of the corpus.
        groups: item id of each passage; copies share one.
        query_groups: queries with equal text share a number.
    """

    data: RetrievalData
    query_tokens: Ragged
    passage_tokens: Ragged
    groups: Int64[np.ndarray, " M"]
    query_groups: Int64[np.ndarray, " Q"]

    def known_passages(self) -> Ragged:
        """Query row -> train passages known to match it or a query with the same text."""
        positives = self.data.splits["train"].relevant(len(self.data.queries))
        num_groups = len(self.query_groups)
        by_group = Ragged.from_pairs(self.query_groups[positives.rows], positives.values, num_groups)
        return by_group.take(self.query_groups)


def prepare_text(data: RetrievalData, encoder: TextEncoder) -> PreparedText:
    """Tokenises queries and passages and groups equal ones.

    Raises:
        InputError: there is no train split, or a text has no token (its id is named).
    """
    require_split(data, "train")
    query_tokens = encoder.tokenize(data.queries.full(), kind="query")
    passage_tokens = encoder.tokenize(data.passages.full(), kind="passage")
    _refuse_tokenless(query_tokens, data.queries, what="query")
    _refuse_tokenless(passage_tokens, data.passages, what="passage")
    return PreparedText(data, query_tokens, passage_tokens, passage_groups(data), query_groups(data))


def text_pairs(text: PreparedText, *, batch_size: int, num_negatives: int) -> TextPairs:
    """The training source: batches of the train split.

    Raises:
        InputError: the batch is larger than the number of train queries.
    """
    num_queries = len(text.data.splits["train"].judged_queries)
    if not 2 <= batch_size <= num_queries:
        raise InputError(
            f"training.batch_size {batch_size}; valid is 2 to {num_queries}, the train queries of "
            f"'{text.data.name}'"
        )
    return TextPairs(
        text.query_tokens,
        text.passage_tokens,
        qrels=text.data.splits["train"],
        groups=text.groups,
        query_groups=text.query_groups,
        batch_size=batch_size,
        num_negatives=num_negatives,
    )


def given_table(data: RetrievalData, *, num_negatives: int) -> NegativeTable | None:
    """The negatives the data names itself, as the table before any mining; None where it names none.

    A query with more of them than `num_negatives` keeps all: as many columns as the longest has, at least
    `num_negatives`; empty places hold -1.
    """
    if data.given_negatives is None or num_negatives == 0:
        return None
    train = data.splits["train"].judged_queries
    given = data.given_negatives.take(train)
    rows = given.padded(width=max(num_negatives, int(given.counts.max(initial=0))))
    there = rows >= 0
    return NegativeTable(
        round=0,
        queries=train,
        rows=rows,
        # The data gives no scores: 0 where there is a negative.
        scores=np.where(there, np.float32(0), np.float32(-np.inf)),
        ranks=np.full(rows.shape, -1, dtype=np.int32),
        sources=np.where(there, np.int8(SOURCES.index("given")), np.int8(-1)),
    )


def given_hits(data: RetrievalData, queries: Int64[np.ndarray, " Q"]) -> dict[str, Hits]:
    """The same negatives as candidates for mining, under the name of their source; empty for none."""
    if data.given_negatives is None:
        return {}
    rows = data.given_negatives.take(queries).padded()
    scores = np.where(rows >= 0, np.float32(0), np.float32(-np.inf))
    return {"given": Hits(scores, rows)}


def require_split(data: RetrievalData, split: str) -> Qrels:
    """The judgements of a split. Raises InputError, with the splits there are, where it is missing."""
    if split not in data.splits:
        raise InputError(
            f"data set '{data.name}' has no split '{split}'; it has {', '.join(data.splits) or 'none'}"
        )
    return data.splits[split]


def _refuse_tokenless(tokens: Ragged, texts: Texts, *, what: str) -> None:
    empty = np.flatnonzero(tokens.counts == 0)
    if len(empty):
        raise InputError(
            f"{what} '{texts.ids[empty[0]]}': no token in {texts.texts[empty[0]]!r:.40} "
            f"({len(empty)} of {len(tokens)} texts); remove it, or set encoder.keep_punctuation to true"
        )

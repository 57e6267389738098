"""What the audit of mined texts is told: similar texts and queries, what other splits judge, names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.audit_pairs import text_similarity
from retrieval_cl.mining.near_queries import QueryPairs, near_texts_of
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.mine_audit import Subject
from retrieval_cl.runs.mine_page import Naming
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.text_miner import TextMiner
from retrieval_cl.sources.records import RetrievalData
from retrieval_cl.sources.word_ids import word_ids


def subject_of(text: PreparedText, table: NegativeTable, miner: TextMiner, *, audit: AuditConfig) -> Subject:
    """The table with what it is judged by."""
    known = text.known_passages().take(miner.queries)
    rows = np.unique(np.concatenate([known.values, table.rows[table.rows >= 0]]))
    texts = text.data.passages.full()
    similarity = text_similarity(word_ids([texts[row] for row in rows.tolist()]), rows)
    return Subject(
        table,
        known,
        miner.score(known),
        text.groups,
        similarity,
        audit.near_text,
        "overlap of word triples",
        _query_pairs(text, miner, least=audit.near_query),
    )


def _query_pairs(text: PreparedText, miner: TextMiner, *, least: float) -> QueryPairs:
    texts = text.data.queries.full()
    # Queries with the same text have the same right answers: one of them stands for all.
    asked = zip(miner.queries.tolist(), miner.alone.tolist(), strict=True)
    words = word_ids([texts[row] if alone else "" for row, alone in asked])
    # A query is short: triples of its words would hardly ever be the same.
    return near_texts_of(ShingleSets.from_words(words, width=1), least=least)


def judged_of(
    text: PreparedText, queries: Int64[np.ndarray, " N"]
) -> Mapping[str, tuple[Int64[np.ndarray, " R"], Ragged]]:
    """Split -> its right passages, and those of each query or of one with the same text; train is none."""
    found = {}
    for split, qrels in text.data.splits.items():
        if split == "train":
            continue
        relevant = qrels.relevant(len(text.data.queries))
        by_text = Ragged.from_pairs(text.query_groups[relevant.rows], relevant.values, len(text.query_groups))
        found[split] = (np.unique(relevant.values), by_text.take(text.query_groups[queries]))
    return found


def naming_of(data: RetrievalData) -> Naming:
    """How rows are called."""
    queries, passages = data.queries, data.passages
    return Naming(
        query_id=lambda row: queries.ids[row],
        passage_id=lambda row: passages.ids[row],
        query=lambda row: queries.full()[row] if queries.titles[row] else queries.texts[row],
        passage=lambda row: (passages.titles[row] or passages.ids[row], passages.texts[row]),
    )

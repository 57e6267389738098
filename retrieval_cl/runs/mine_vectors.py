"""Mines hard negatives from stored vectors and ids alone: of texts, images or anything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from retrieval_cl.config import RunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import rank
from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing.store import hash_texts
from retrieval_cl.mining.audit_pairs import vector_similarity
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.estimate import HeldBack
from retrieval_cl.mining.export_files import Columns, writer_of
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.near_queries import near_vectors_of
from retrieval_cl.mining.samples import score_samples
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.searchers import build_search
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.early_checks import check_mining_of_vectors
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.mine_audit import MineHeldBack, Subject, audit_table, estimate_held_back
from retrieval_cl.runs.mine_counts import refuse_empty
from retrieval_cl.runs.mine_page import Naming
from retrieval_cl.runs.mine_recall import measure_search
from retrieval_cl.runs.mine_result import (
    TABLE,
    Mined,
    MineOptions,
    Report,
    advice_of,
    older_table,
    write_report,
)
from retrieval_cl.runs.plan import Plan, plan_vectors, search_memory
from retrieval_cl.runs.remembering import remembering
from retrieval_cl.runs.sharing import Sharing, over_all_ranks
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.stored_vectors import Stored, read_positives, read_stored
from retrieval_cl.training.device import start_accelerator

_CHUNK = 4096
_NEEDS_TEXTS = ("candidates", "near_text", "reranker", "second_model")


@final
@dataclass(frozen=True, eq=False)
class VectorMiner:
    """Stored vectors with what is known to match, ready to be mined.

    Attributes:
        queries: all of the file.
        passages: all of the file.
        rows: query rows with a positive, ascending; the others are left out.
        positives: passage rows known to match query `rows[i]`.
        config: of the run.
        memory_bytes: for exact search.
        plan: what mining takes.
    """

    queries: Stored
    passages: Stored
    rows: Int64[np.ndarray, " N"]
    positives: Ragged
    config: RunConfig
    memory_bytes: int
    plan: Plan

    def search(self, sharing: Sharing) -> Search:
        """The search that the settings ask for, by whoever shares it; an index is built here."""
        vectors, config = self.passages.vectors, self.config
        if config.mining.factory is None:
            return sharing.exact(vectors, device="cpu", memory_bytes=self.memory_bytes)
        queries, seed = self.query_vectors(), config.training.seed
        return sharing.search(build_search(vectors, config.mining, query_vectors=queries, seed=seed))

    def mine(self, search: Search) -> tuple[NegativeTable, MiningCounts]:
        """The table of all queries with a positive."""
        every = np.arange(len(self.rows), dtype=np.int64)
        return self._mine(every, self.positives, self.config.mining, search)

    def held_back(self, search: Search) -> MineHeldBack:
        """Mines for those that hold something back, by any margin; nothing is searched for twice."""
        search = remembering(search)

        def mine_held_back(held: HeldBack, margin: float | None) -> tuple[NegativeTable, MiningCounts]:
            config = self.config.mining.model_copy(update={"relative_margin": margin})
            return self._mine(held.numbers, held.shown, config, search)

        return mine_held_back

    def query_vectors(self) -> Float32[np.ndarray, "N D"]:
        """Of the queries with a positive."""
        vectors = self.queries.vectors
        found: Float32[np.ndarray, "N D"] = vectors if len(self.rows) == len(vectors) else vectors[self.rows]
        return found

    def _mine(
        self, numbers: Int64[np.ndarray, " S"], positives: Ragged, config: MiningConfig, search: Search
    ) -> tuple[NegativeTable, MiningCounts]:
        return mine(
            self.queries.vectors[self.rows[numbers]],
            self.passages.vectors,
            queries=self.rows[numbers],
            positives=positives,
            groups=np.arange(len(self.passages.vectors), dtype=np.int64),
            config=config,
            seed=self.config.training.seed,
            round=0,
            search=search,
        )


def prepare_vectors(
    config: RunConfig,
    *,
    queries: Path | None,
    passages: Path | None,
    positives: Path | None,
    memory: str | None = None,
) -> VectorMiner:
    """Reads the files, checks that they fit together, and plans.

    Args:
        config: its section mining is read, and the seed of training.
        queries: vectors of the queries, with ids.
        passages: vectors that are searched, with ids.
        positives: pairs of ids.
        memory: for exact search, as 2GiB; None: the default.

    Raises:
        InputError: a file was not given, is missing or broken, ids or dimensions do not fit, a row has no
            direction, a setting needs texts, or names a source or an index that cannot be.
    """
    if queries is None or passages is None or positives is None:
        raise InputError("give --query-vectors, --passage-vectors and --positives, all three")
    memory_bytes = search_memory(memory, config.mining)
    for name in _NEEDS_TEXTS:
        if getattr(config.mining, name) != MiningConfig.model_fields[name].default:
            raise InputError(f"mining.{name} has no effect on stored vectors: it needs texts; leave it out")
    left, right = read_stored(queries, what="query"), read_stored(passages, what="passage")
    if left.vectors.shape[1] != right.vectors.shape[1]:
        raise InputError(
            f"{queries}: vectors of {left.vectors.shape[1]} numbers, {passages}: of "
            f"{right.vectors.shape[1]}; both must come from one model"
        )
    check_mining_of_vectors(config.mining, num_passages=len(right.ids), dim=right.vectors.shape[1])
    known = read_positives(positives, queries=left.rows(), passages=right.rows())
    rows = np.flatnonzero(known.counts)
    plan = plan_vectors(left.vectors[rows], right.vectors, config=config.mining, memory_bytes=memory_bytes)
    return VectorMiner(left, right, rows, known.take(rows), config, memory_bytes, plan)


def mine_vectors(miner: VectorMiner, options: MineOptions, *, say: Say = lambda line: None) -> Mined:
    """Mines and writes `negatives/` (the table), `negatives.jsonl` (ids), counts and a page.

    Several ranks search by shares, with the result of one; the first of them writes.

    Args:
        miner: vectors, ids and settings.
        options: where to.
        say: gets a line now and then.

    Raises:
        InputError: the older table is of other ids, or no query gets a negative.
    """
    sharing = over_all_ranks(start_accelerator().device)
    with sharing.together():
        return _mine(miner, options, sharing=sharing, say=say)


def _mine(miner: VectorMiner, options: MineOptions, *, sharing: Sharing, say: Say) -> Mined:
    watch, config, seed = Stopwatch(), miner.config.mining, miner.config.training.seed
    made_by = {"ids": hash_texts([*miner.queries.ids, "", *miner.passages.ids])}
    old = None
    if options.against is not None:
        old = older_table(options.against, made_by=made_by, num_passages=len(miner.passages.ids))
    if left_out := len(miner.queries.ids) - len(miner.rows):
        say(f"{left_out:,} queries have no positive and are left out")
    search = miner.search(sharing)
    table, counts = miner.mine(search)
    refuse_empty(counts)
    if rank() == 0:
        table.save(options.output / TABLE, **made_by, seed=seed)
    say("auditing the table")
    subject = _subject(miner, table, near=options.audit.near_vector)
    written = options.output / f"{TABLE}.{options.suffix}"
    rows = 0
    if rank() == 0:
        rows = writer_of(written)(written, _SCHEMA, _rows(miner, table, subject.positive_scores))
    audit = audit_table(subject, judged={}, old=old, seed=seed)
    say("estimating the false negatives")
    estimate = estimate_held_back(
        miner.positives,
        miner.held_back(search),
        queries=miner.rows,
        groups=subject.groups,
        config=config,
        audit=options.audit,
        seed=seed,
    )
    estimates = [] if estimate is None else [estimate]
    mined = Mined(
        folder=options.output,
        counts=counts,
        rows=rows,
        pairs_left_out=len(miner.positives.values) - rows,
        written=written,
        audit=audit,
        estimates=estimates,
        advice=advice_of(estimates, config=config, audit=options.audit),
        seconds=watch.total,
        recall=measure_search(
            search, config, queries=miner.query_vectors(), passages=miner.passages.vectors, seed=seed
        ),
    )
    if rank() == 0:
        write_report(mined, _report(miner, options, subject), page=options.page)
    return mined


def _subject(miner: VectorMiner, table: NegativeTable, *, near: float) -> Subject:
    positives, vectors = miner.positives, miner.passages.vectors
    scores = vector_scorer(miner.query_vectors(), vectors)(positives.rows, positives.values)
    groups = np.arange(len(vectors), dtype=np.int64)
    pairs = near_vectors_of(miner.query_vectors(), least=near, seed=miner.config.training.seed)
    return Subject(table, positives, scores, groups, vector_similarity(vectors), near, "cosine", pairs)


_SCHEMA = pa.schema(
    {
        "query": pa.string(),
        "positive": pa.string(),
        "negatives": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
    }
)


def _rows(miner: VectorMiner, table: NegativeTable, scores: Float32[np.ndarray, " V"]) -> Iterator[Columns]:
    """A row for each pair whose query has a negative: ids, and the scores of positive and negatives."""
    owners, values = miner.positives.rows, miner.positives.values
    pairs = np.flatnonzero((table.rows[owners] >= 0).any(axis=1))
    names = miner.passages.ids
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        lines = owners[part]
        there = [row[row >= 0].tolist() for row in table.rows[lines]]
        found = [row[: len(kept)].tolist() for row, kept in zip(table.scores[lines], there, strict=True)]
        yield {
            "query": [miner.queries.ids[row] for row in table.queries[lines].tolist()],
            "positive": [names[row] for row in values[part].tolist()],
            "negatives": [[names[row] for row in kept] for kept in there],
            "scores": [[one, *row] for one, row in zip(scores[part].tolist(), found, strict=True)],
        }


def _report(miner: VectorMiner, options: MineOptions, subject: Subject) -> Report:
    config, names = miner.config.mining, (miner.queries.ids, miner.passages.ids)
    return Report(
        subject=subject,
        naming=Naming(
            query_id=lambda row: names[0][row],
            passage_id=lambda row: names[1][row],
            query=lambda row: names[0][row],
            passage=lambda row: (names[1][row], ""),
        ),
        scores=score_samples(
            subject.table,
            miner.query_vectors(),
            miner.passages.vectors,
            positives=miner.positives,
            seed=miner.config.training.seed,
        ),
        plan=miner.plan,
        config=config,
        audit=options.audit,
        facts={"num_passages": len(names[1]), "num_queries": len(names[0])},
        settings={
            "queries": f"{len(names[0]):,}, {len(miner.rows):,} of them with a positive",
            "passages": f"{len(names[1]):,}",
            "mined negatives": f"{config.num_negatives} a query, ranks {config.rank_min} to "
            f"{config.last_rank}, {config.sampling}",
        },
        data=None,
        examples=[],
        command=options.command,
    )

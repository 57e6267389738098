"""Mines hard negatives with a model: a table for training, and texts for any trainer; audits the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.config import RunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import rank
from retrieval_cl.encoders.load import build_encoder, load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.export import Exported, write_texts
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.early_checks import check_mining
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.kept_vectors import KeptVectors, check_store
from retrieval_cl.runs.mine_audit import (
    Estimate,
    Subject,
    audit_table,
    estimate_held_back,
    estimate_teacher,
)
from retrieval_cl.runs.mine_counts import refuse_empty
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
from retrieval_cl.runs.mine_subject import judged_of, naming_of, subject_of
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.plan import Plan, plan_text, search_memory
from retrieval_cl.runs.prepare import PreparedText, given_hits, prepare_text
from retrieval_cl.runs.reports import data_facts, describe_data, negative_examples, settings_facts
from retrieval_cl.runs.sharing import Sharing, over_all_ranks
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.text_miner import TextMiner, searched_rows
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.sources.load import load
from retrieval_cl.sources.records import RetrievalData
from retrieval_cl.training.device import start_accelerator


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """Texts ready to be mined, and what that will cost.

    Attributes:
        config: of the run.
        encoder: embeds queries and passages.
        text: to be mined.
        memory_bytes: for exact search.
        plan: as if every text had to be encoded.
        store: folder that keeps their vectors; None: they are not kept.
    """

    config: RunConfig
    encoder: TextEncoder
    text: PreparedText
    memory_bytes: int
    plan: Plan
    store: Path | None = None


def prepare(
    config: RunConfig, encoder: TextEncoder, *, memory: str | None = None, store: Path | None = None
) -> Prepared:
    """Reads and tokenises the data, and plans.

    Args:
        config: its sections source and mining are read, and the seed of training.
        encoder: embeds queries and passages.
        memory: for exact search, as 2GiB; None: the default.
        store: folder that keeps the vectors; None: they are not kept.

    Raises:
        InputError: the data is missing, broken or has no train split; `memory` is no size; `store` no place
            for one; or the settings of mining name what is not there.
    """
    check_store(store)
    memory_bytes = search_memory(memory, config.mining)
    data = load(config.source)
    check_mining(config.mining, data, dim=encoder.dim)
    text = prepare_text(data, encoder.to(start_accelerator().device))
    queries = text.data.splits["train"].judged_queries
    plan = plan_text(
        encoder,
        text.query_tokens.take(queries),
        text.passage_tokens,
        num_searched=len(searched_rows(text, config.mining)),
        config=config.mining,
        memory_bytes=memory_bytes,
    )
    return Prepared(config, encoder, text, memory_bytes, plan, store)


def mine_negatives(prepared: Prepared, options: MineOptions, *, say: Say = lambda line: None) -> Mined:
    """Mines for the train queries and writes `negatives/` (the table), the texts, counts and a page.

    Several ranks encode and search by shares, with the result of one; the first of them writes.

    Args:
        prepared: texts, encoder and settings.
        options: where to and in which shape.
        say: gets a line now and then.

    Raises:
        InputError: a vector is zero or not finite, the older table is of other data, or scores of a teacher
            are wanted and none is set, or no query gets a negative.
    """
    with over_all_ranks(prepared.encoder.device).together():
        return _mine(prepared, options, say=say)


def _mine(prepared: Prepared, options: MineOptions, *, say: Say) -> Mined:
    watch, text = Stopwatch(), prepared.text
    old = check_options(prepared, options)
    say(f"{describe_data(text.data)}; encoding")
    miner = _encode(prepared, say=say)
    table, counts = miner.mine()
    refuse_empty(counts)
    seed, fingerprint = miner.seed, prepared.encoder.fingerprint()
    if rank() == 0:
        table.save(options.output / TABLE, data=text.data.name, fingerprint=fingerprint, seed=seed)
    written, exported = _export(text.data, table, miner, options=options)
    subject = subject_of(text, table, miner, audit=options.audit)
    audit = audit_table(subject, judged=judged_of(text, miner.queries), old=old, seed=seed)
    say("estimating the false negatives")
    estimates = _estimates(miner, subject, audit=options.audit)
    mined = Mined(
        folder=options.output,
        counts=counts,
        rows=exported.rows,
        pairs_left_out=exported.pairs_left_out,
        written=written,
        audit=audit,
        estimates=estimates,
        advice=advice_of(estimates, config=miner.config, audit=options.audit),
        seconds=watch.total,
        recall=measure_search(
            miner.search, miner.config, queries=miner.query_vectors, passages=miner.passage_vectors, seed=seed
        ),
    )
    if rank() == 0:
        write_report(mined, _report(prepared, options, subject, miner=miner), page=options.page)
    return mined


def encoder_of(config: RunConfig, model: Model | None) -> TextEncoder:
    """The encoder of a model, or else the pretrained one that the config names.

    Raises:
        InputError: there is neither, or it cannot be loaded.
    """
    if model is not None:
        return load_encoder(model.path)
    if config.encoder.kind == "static":
        raise InputError("no model named: give MODEL, or a config whose encoder.kind is a pretrained one")
    return build_encoder(config.encoder, corpus_texts=())


def _encode(prepared: Prepared, *, say: Say) -> TextMiner:
    config, encoder, text = prepared.config, prepared.encoder, prepared.text
    queries = text.data.splits["train"].judged_queries
    sharing = over_all_ranks(encoder.device)
    query_vectors, passage_vectors = _vectors(prepared, queries, sharing=sharing, say=say)
    return TextMiner.prepare(
        text,
        query_vectors,
        passage_vectors,
        extra=given_hits(text.data, queries),
        config=config.mining,
        seed=config.training.seed,
        device=str(encoder.device),
        memory_bytes=prepared.memory_bytes,
        sharing=sharing,
    )


def _vectors(
    prepared: Prepared, queries: Int64[np.ndarray, " N"], *, sharing: Sharing, say: Say
) -> tuple[Float32[np.ndarray, "N D"], Float32[np.ndarray, "M D"]]:
    """Of the given queries, and of the corpus."""
    encoder, data = prepared.encoder, prepared.text.data
    if prepared.store is None:
        made = Vectors(prepared.text, encoder, precision="fp32", sharing=sharing)
        return made.queries(queries), made.passages()
    kept, asked = KeptVectors(prepared.store, say), data.queries.full()
    return (
        kept.vectors([asked[row] for row in queries.tolist()], encoder=encoder, kind="query"),
        kept.vectors(data.passages.full(), encoder=encoder, kind="passage"),
    )


def _export(
    data: RetrievalData, table: NegativeTable, miner: TextMiner, *, options: MineOptions
) -> tuple[Path, Exported]:
    """Writes the texts on the first rank; the others write no row."""
    judged = data.splits["train"].relevant(len(data.queries)).take(miner.queries)
    path = options.output / f"{options.shape}.{options.suffix}"
    if rank() > 0:
        return path, Exported(0, 0)
    exported = write_texts(
        path,
        table,
        shape=options.shape,
        queries=data.queries.full(),
        passages=data.passages.full(),
        positives=judged,
        positive_scores=miner.score(judged) if options.scores == "vectors" else None,
        scores=options.scores,
    )
    return path, exported


def _report(prepared: Prepared, options: MineOptions, subject: Subject, *, miner: TextMiner) -> Report:
    data = prepared.text.data
    return Report(
        subject=subject,
        naming=naming_of(data),
        scores=miner.sample_scores(subject.table, subject.positives),
        plan=prepared.plan,
        config=miner.config,
        audit=options.audit,
        facts={"data": data.name, "num_passages": len(data.passages)},
        settings=settings_facts(prepared.config),
        data=data_facts(data),
        examples=negative_examples(data, subject.table),
        command=options.command,
    )


def _estimates(miner: TextMiner, subject: Subject, *, audit: AuditConfig) -> list[Estimate]:
    quick, hideable = miner.to_hold_back()
    held_back = estimate_held_back(
        hideable,
        quick.held_back,
        queries=miner.queries,
        groups=miner.groups,
        config=miner.config,
        audit=audit,
        seed=miner.seed,
    )
    found = [held_back, estimate_teacher(subject, config=miner.config, audit=audit)]
    return [one for one in found if one is not None]


def check_options(prepared: Prepared, options: MineOptions) -> NegativeTable | None:
    """The older table to compare with, if one is named.

    Raises:
        InputError: options that the settings or the data do not allow: better before than after the work.
    """
    if options.scores == "teacher" and prepared.config.mining.reranker is None:
        raise InputError("--scores teacher: no teacher scores the negatives; set mining.reranker")
    if options.against is None:
        return None
    data = prepared.text.data
    return older_table(options.against, made_by={"data": data.name}, num_passages=len(data.passages))

"""Mines hard negatives with a model: a table for training, and triplets as texts for any trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from retrieval_cl.config import RunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.encoders.load import build_encoder, load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.export import Exported, write_triplets, write_tuples
from retrieval_cl.mining.samples import score_samples
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.reporting.mining_report import MiningReport, write_mining_report
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.machine import describe_machine, on_device
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.prepare import given_hits, prepare_text
from retrieval_cl.runs.reports import (
    data_facts,
    negative_examples,
    provenance,
    score_groups,
    settings_facts,
)
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.runs.train_queries import mine_train_queries
from retrieval_cl.sources.load import load

TABLE = "negatives"
COUNTS = "mining.json"
PAGE = "mining.html"
Shape = Literal["triplets", "tuples"]


@final
@dataclass(frozen=True, eq=False)
class Mined:
    """What `mine` leaves: the folder, what the rules did, and how many rows were written as texts."""

    folder: Path
    counts: MiningCounts
    exported: Exported
    texts: Path
    seconds: float


def mine_negatives(
    config: RunConfig,
    encoder: TextEncoder,
    *,
    output: Path,
    shape: Shape = "triplets",
    suffix: Literal["jsonl", "parquet"] = "jsonl",
    command: str = "retrieval-cl mine",
    say: Say = lambda line: None,
) -> Mined:
    """Mines for the train queries and writes `negatives/` (the table), the texts, counts and a page.

    Args:
        config: its sections source and mining are read, and the seed of training.
        encoder: embeds queries and passages.
        output: folder for all of it.
        shape: triplets: a row for each negative; tuples: all negatives of a query in one row.
        suffix: kind of the file of texts.
        command: what the user typed, for the page.
        say: gets a line now and then.

    Raises:
        InputError: the data is missing, broken or has no train split; or a vector is zero or not finite.
    """
    watch = Stopwatch()
    data = load(config.source)
    on_device(encoder)
    text = prepare_text(data, encoder)
    train = data.splits["train"]
    queries = train.judged_queries
    say(f"{data.name}: {len(data.passages):,} passages, {len(queries):,} train queries; encoding")
    query_vectors = encoder.encode(text.query_tokens.take(queries), kind="query")
    passage_vectors = encoder.encode(text.passage_tokens, kind="passage")
    seed = config.training.seed
    table, counts = mine_train_queries(
        text,
        query_vectors,
        passage_vectors,
        config=config.mining,
        extra=given_hits(data, queries),
        seed=seed,
        round=0,
        device=str(encoder.device),
    )
    positives = train.relevant(len(data.queries)).take(queries)
    table.save(output / TABLE, data=data.name, fingerprint=encoder.fingerprint(), seed=seed)
    path = output / f"{shape}.{suffix}"
    exported = {"triplets": write_triplets, "tuples": write_tuples}[shape](
        path,
        table,
        queries=data.queries.full(),
        passages=data.passages.full(),
        positives=positives,
        positive_scores=vector_scorer(query_vectors, passage_vectors)(positives.rows, positives.values),
    )
    scores = score_samples(table, query_vectors, passage_vectors, positives=positives, seed=seed)
    facts = {
        "data": data.name,
        "num_passages": len(data.passages),
        "counts": counts.to_dict(),
        "rows": exported.rows,
        "pairs_left_out": exported.pairs_left_out,
        "seconds": watch.total,
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
        "command": command,
        "settings": config.mining.model_dump(mode="json"),
    }
    write_json(output / COUNTS, facts)
    page = MiningReport(
        rounds=[MiningRound(0, counts, seconds=watch.total)],
        provenance=provenance(command, settings=settings_facts(config)),
        data=data_facts(data),
        scores=score_groups(scores),
        examples=negative_examples(data, table),
    )
    write_mining_report(output / PAGE, page)
    return Mined(output, counts, exported, path, watch.total)


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


def describe(mined: Mined) -> str:
    """What the rules removed and what was drawn, for a terminal."""
    counts = mined.counts
    removed = ", ".join(f"{number:,} {rule}" for rule, number in counts.removed.items() if number)
    drawn = ", ".join(f"{number:,} {source}" for source, number in counts.drawn.items())
    lines = [
        f"{counts.num_queries:,} queries, {sum(counts.found.values()):,} candidates",
        f"removed: {removed or 'none'}",
        f"drawn: {drawn or 'none'}; places left empty: {counts.empty:,}",
        f"{mined.exported.rows:,} rows in {mined.texts} ({mined.seconds:.1f} s)",
    ]
    if mined.exported.pairs_left_out:
        lines.append(f"{mined.exported.pairs_left_out:,} pairs without enough negatives gave no row")
    return "\n".join([*lines, f"table, counts and page in {mined.folder}"])

"""The command `mine`: from a model and a data set, or from stored vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from retrieval_cl.config import refuse_overrides
from retrieval_cl.console import say, tell, typed_command
from retrieval_cl.core.errors import InputError
from retrieval_cl.options import Config, Data, Output, Scores, Set, Shape, Store
from retrieval_cl.runs.models import config_for, find_model


def mine(
    model: Annotated[str | None, typer.Argument(help="Default: the encoder of --config.")] = None,
    data: Data = None,
    config: Config = None,
    output: Output = None,
    shape: Annotated[Shape, typer.Option(help="Rows of texts.")] = "triplets",
    scores: Annotated[Scores, typer.Option(help="Written beside the texts.")] = "vectors",
    suffix: Annotated[Literal["jsonl", "parquet"], typer.Option("--format", help="Of texts.")] = "jsonl",
    query_vectors: Annotated[Path | None, typer.Option(help="Mine stored vectors, of any kind.")] = None,
    passage_vectors: Annotated[Path | None, typer.Option(help=".npy, .safetensors or .parquet")] = None,
    positives: Annotated[Path | None, typer.Option(help="Pairs of their ids: .tsv, qrels, .jsonl")] = None,
    against: Annotated[Path | None, typer.Option(help="An older table to compare with.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="The audit as a page.")] = True,
    bound: Annotated[float, typer.Option(help="False negatives a margin may leave.")] = 0.05,
    hidden_share: Annotated[float, typer.Option(help="Of known answers, for the estimate.")] = 0.5,
    store: Store = None,
    memory: Annotated[str | None, typer.Option(help="For exact search: 2GiB.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "--plan", help="Say what it takes; stop.")] = False,
    set_: Set = None,
) -> None:
    """Mine hard negatives; write a table, texts for any trainer, and an audit of the table.

    With --query-vectors, --passage-vectors and --positives neither model nor texts are needed.

    Examples:
    * `retrieval-cl mine runs/tldr --output runs/tldr/mined`
    * `retrieval-cl mine sentence-transformers/all-MiniLM-L6-v2 --data data/tldr --set mining.rank_min=5`
    * `retrieval-cl mine runs/tldr --store runs/vectors`
    * `retrieval-cl mine runs/tldr --shape tuples --format parquet --against runs/old/mined`
    * `retrieval-cl mine --query-vectors q.npy --passage-vectors p.npy --positives qrels.tsv -o mined`
    """
    from retrieval_cl.runs.mine_result import MineOptions, audit_settings, check_output, describe

    audit = audit_settings(bound=bound, hidden_share=hidden_share)
    files = (query_vectors, passage_vectors, positives)
    stored = any(file is not None for file in files)
    used = ("mining", "training") if stored else ("source", "mining", "encoder", "training")
    refuse_overrides(set_ or (), used=used, command="mine")
    of_texts = (model, data, store) != (None, None, None) or (shape, scores) != ("triplets", "vectors")
    if stored and of_texts:
        raise InputError(
            "stored vectors are mined without MODEL, --data, --store, --shape, --scores; leave them out"
        )
    found = None if model is None else find_model(model)
    settings = config_for(found, config=config, overrides=set_ or (), data=data, needs_data=not stored)
    options = MineOptions(
        output=output or (settings.folder if found is None else found.folder) / "mined",
        shape=shape,
        scores=scores,
        suffix=suffix,
        against=against,
        audit=audit,
        page=report,
        command=typed_command(sys.argv[1:]),
    )
    check_output(options.output)
    if stored:
        from retrieval_cl.runs import mine_vectors as bare

        miner = bare.prepare_vectors(
            settings, queries=query_vectors, passages=passage_vectors, positives=positives, memory=memory
        )
        _tell_plan(miner.plan.lines(), dry_run=dry_run)
        if not dry_run:
            tell(describe(bare.mine_vectors(miner, options, say=say)))
        return
    from retrieval_cl.runs import mine as story

    prepared = story.prepare(settings, story.encoder_of(settings, found), memory=memory, store=store)
    story.check_options(prepared, options)
    kept = [] if store is None else [f"plan: what {store} holds is not encoded again"]
    _tell_plan([*prepared.plan.lines(), *kept], dry_run=dry_run)
    if not dry_run:
        tell(describe(story.mine_negatives(prepared, options, say=say)))


def _tell_plan(lines: list[str], *, dry_run: bool) -> None:
    """The plan is the result of a dry run, and a word beside it of any other."""
    for line in lines:
        (tell if dry_run else say)(line)

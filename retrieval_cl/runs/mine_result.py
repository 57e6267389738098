"""What a run of the miner leaves beside table and texts: counts, audit and estimates, as JSON and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_manifest, write_json
from retrieval_cl.indexing.recall import Recall
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.export import Scores, Shape
from retrieval_cl.mining.samples import ScoreSamples
from retrieval_cl.mining.table import KIND, NegativeTable
from retrieval_cl.reporting.facts import DataFacts, Example, MiningRound
from retrieval_cl.reporting.mining_audit import recommendation
from retrieval_cl.reporting.mining_report import MiningReport, write_mining_report
from retrieval_cl.reporting.wording import percent
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.mine_audit import Audit, Estimate, Subject
from retrieval_cl.runs.mine_counts import count_lines, shortages
from retrieval_cl.runs.mine_page import Naming, audit_facts, estimate_facts, near_query_rows, suspect_rows
from retrieval_cl.runs.plan import Plan
from retrieval_cl.runs.reports import provenance, score_groups
from retrieval_cl.runs.stopwatch import peak_rss_gib

TABLE = "negatives"
COUNTS = "mining.json"
PAGE = "mining.html"


@final
@dataclass(frozen=True)
class MineOptions:
    """What is asked of a run of the miner beside its config.

    Attributes:
        output: folder for all of it.
        shape: of the rows of texts, see `mining.export`.
        scores: written beside the texts: the vectors', a teacher's or none.
        suffix: kind of the file of texts.
        against: an older table, or the folder of a run of the miner, to compare with.
        audit: settings of the audit.
        page: whether `mining.html` is written; the audit is in `mining.json` in any case.
        command: what the user typed, for the page.
    """

    output: Path
    shape: Shape = "triplets"
    scores: Scores = "vectors"
    suffix: Literal["jsonl", "parquet"] = "jsonl"
    against: Path | None = None
    audit: AuditConfig = field(default_factory=AuditConfig)
    page: bool = True
    command: str = "retrieval-cl mine"


@final
@dataclass(frozen=True, eq=False)
class Mined:
    """What a run of the miner leaves.

    Attributes:
        folder: of table, counts and page.
        counts: what the rules did.
        rows: written to `written`.
        pairs_left_out: pairs of a query and a positive that gave no row for want of negatives.
        written: texts or ids for any trainer.
        audit: of the table.
        estimates: of the false-negative rate.
        advice: what the first estimate recommends, or why there is none; empty where none was wanted.
        seconds: of all of it.
        recall: of a FAISS index against exact search; None where the search was exact.
    """

    folder: Path
    counts: MiningCounts
    rows: int
    pairs_left_out: int
    written: Path
    audit: Audit
    estimates: Sequence[Estimate]
    advice: str
    seconds: float
    recall: Recall | None = None


@final
@dataclass(frozen=True, eq=False)
class Report:
    """What the page and the JSON file are made of, beside the result.

    Attributes:
        subject: the table and what it is judged by.
        naming: how rows are called.
        scores: samples for the histograms.
        plan: what was expected.
        config: of the miner.
        audit: settings of the audit.
        facts: further JSON values: data, rows written.
        settings: shown on the page.
        data: shown on the page; None for bare vectors.
        examples: shown on the page.
        command: what the user typed.
    """

    subject: Subject
    naming: Naming
    scores: ScoreSamples
    plan: Plan
    config: MiningConfig
    audit: AuditConfig
    facts: Mapping[str, Any]
    settings: Mapping[str, str]
    data: DataFacts | None
    examples: Sequence[Example]
    command: str


def write_report(mined: Mined, report: Report, *, page: bool) -> None:
    """Writes `mining.json` and, where wanted, `mining.html`, each whole or not at all."""
    queries = report.subject.table.queries
    write_json(
        mined.folder / COUNTS,
        {
            **report.facts,
            "counts": mined.counts.to_dict(),
            "rows": mined.rows,
            "pairs_left_out": mined.pairs_left_out,
            "audit": {
                **mined.audit.to_dict(),
                "suspects_by_score": suspect_rows(mined.audit.by_score, queries, naming=report.naming),
                "suspects_by_similarity": suspect_rows(
                    mined.audit.by_similarity, queries, naming=report.naming
                ),
                "near_query_pairs": near_query_rows(mined.audit.near_queries, queries, naming=report.naming),
            },
            "estimates": [one.to_dict() for one in mined.estimates],
            "advice": mined.advice,
            "search_recall": None if mined.recall is None else mined.recall.to_json(),
            "plan": report.plan.to_dict(),
            "seconds": mined.seconds,
            "peak_rss_gib": peak_rss_gib(),
            "machine": describe_machine(),
            "command": report.command,
            "settings": report.config.model_dump(mode="json"),
            "audit_settings": report.audit.model_dump(mode="json"),
        },
    )
    # A page of an earlier table must not stand beside this one.
    (mined.folder / PAGE).unlink(missing_ok=True)
    if page:
        _write_page(mined, report)


def _write_page(mined: Mined, report: Report) -> None:
    difference = mined.audit.difference
    further = {name: f"{number:,}" for name, number in shortages(mined.counts).items()}
    if difference is not None:
        further["shared with the older table"] = percent(difference.shared_share)
    page = MiningReport(
        rounds=[
            MiningRound(report.subject.table.round, mined.counts, seconds=mined.seconds, further=further)
        ],
        provenance=provenance(report.command, settings=report.settings),
        data=report.data,
        scores=score_groups(report.scores),
        examples=report.examples,
        audit=audit_facts(mined.audit, report.subject, naming=report.naming),
        estimates=estimate_facts(mined.estimates, config=report.config, audit=report.audit),
        no_estimate="" if mined.estimates else mined.advice,
    )
    write_mining_report(mined.folder / PAGE, page)


def audit_settings(*, bound: float, hidden_share: float) -> AuditConfig:
    """Settings from the command line. Raises InputError where one is no share."""
    for name, value in (("--bound", bound), ("--hidden-share", hidden_share)):
        if not 0 < value < 1:
            raise InputError(f"{name} {value:g}: expected a share above 0 and below 1, such as 0.05")
    return AuditConfig(bound=bound, hidden_share=hidden_share)


def advice_of(estimates: Sequence[Estimate], *, config: MiningConfig, audit: AuditConfig) -> str:
    """What the first estimate recommends, in a sentence; or why there is none."""
    facts = estimate_facts(estimates, config=config, audit=audit)
    if facts:
        return recommendation(facts[0])
    if not audit.hidden_queries:
        return ""
    return (
        "No estimate of false negatives: no query has two known passages, one of which could be held back, "
        "and there are no teacher's scores free of a margin."
    )


def check_output(folder: Path) -> None:
    """Raises InputError where a file stands in the folder's place: better before than after the work."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file stands there; --output takes a folder")


def older_table(path: Path, *, made_by: Mapping[str, str], num_passages: int) -> NegativeTable:
    """The table to compare with: a folder of `mine` or of a table itself.

    Args:
        path: the folder.
        made_by: what its manifest must say, such as the name of the data.
        num_passages: rows of the corpus.

    Raises:
        InputError: it is no such folder, or it was mined from other data: rows would mean other passages.
    """
    folder = path / TABLE if (path / TABLE).is_dir() else path
    table, made = NegativeTable.load(folder), read_manifest(folder, KIND)["made_by"]
    for key, value in made_by.items():
        if made.get(key) != value:
            raise InputError(
                f"--against {path}: mined with {key} '{made.get(key)}', this run has '{value}'; "
                "give a table of the same data"
            )
    highest = int(table.rows.max(initial=-1))
    if highest >= num_passages:
        raise InputError(
            f"--against {path}: holds passage row {highest}, this data has {num_passages} passages"
        )
    return table


def describe(mined: Mined) -> str:
    """What the rules removed, what was drawn and how much of it may be false, for a terminal."""
    lines = [
        *count_lines(mined.counts),
        *([] if mined.recall is None else [f"search: {mined.recall.text()}"]),
        *(_estimated(one) for one in mined.estimates),
        *([mined.advice] if mined.advice else []),
        *(_compared(mined)),
        f"{mined.rows:,} rows in {mined.written} ({mined.seconds:.1f} s)",
    ]
    if mined.pairs_left_out:
        lines.append(f"{mined.pairs_left_out:,} pairs without enough negatives gave no row")
    what = "table, counts and page" if (mined.folder / PAGE).is_file() else "table and counts"
    return "\n".join([*lines, f"{what} in {mined.folder}"])


def _estimated(one: Estimate) -> str:
    how = "judgements held back" if one.kind == "held_back" else "the teacher's scores"
    rate = one.rate
    return (
        f"false negatives, by {how}: {percent(rate.mean)} "
        f"[{percent(rate.low)}, {percent(rate.high)}] of the negatives of {rate.queries:,} queries"
    )


def _compared(mined: Mined) -> list[str]:
    found = mined.audit.difference
    if found is None:
        return []
    return [
        f"against the older table: {found.shared:,} shared ({percent(found.shared_share)}), "
        f"{found.added:,} new, {found.gone:,} gone"
    ]

"""From the values of a run to what the report pages show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from retrieval_cl.config import RunConfig, mines
from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.samples import ScoreSamples
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.reporting.facts import DataFacts, Example, Found, Provenance
from retrieval_cl.reporting.plots import Scores
from retrieval_cl.reporting.training_report import TrainingReport
from retrieval_cl.runs.dual_encoder import TrainedRun
from retrieval_cl.runs.held_out import HeldOut
from retrieval_cl.runs.judged import Judged
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.scoreboard import Scoreboard
from retrieval_cl.runs.stopwatch import peak_rss_gib
from retrieval_cl.sources.records import RetrievalData

NUM_EXAMPLES = 10
SHOWN_HITS = 5
_SEED = 11


def training_report(
    run: TrainedRun,
    config: RunConfig,
    data: RetrievalData,
    held_out: HeldOut | None,
    scoreboard: Scoreboard | None,
    *,
    seconds: Mapping[str, float],
    total: float,
    command: str,
) -> TrainingReport:
    """The page of one run."""
    settings = settings_facts(config)
    if held_out is not None:
        settings["BM25"] = held_out.words.describe()
    return TrainingReport(
        name=config.name,
        model=describe_encoder(config, dim=run.encoder.dim),
        dim=run.encoder.dim,
        arm=run.arm(config.name),
        provenance=provenance(command, settings=settings),
        metric=config.evaluation.metric,
        data=data_facts(data),
        results={} if scoreboard is None else scoreboard.results,
        comparisons=[] if scoreboard is None else scoreboard.comparisons(),
        scores={} if run.scores is None else score_groups(run.scores),
        examples=[] if scoreboard is None else query_examples(data, scoreboard.judged, scoreboard.hits),
        mining=run.rounds,
        seconds=seconds,
        total_seconds=total,
        peak_rss_gib=peak_rss_gib(),
        next_commands=[
            ("Index the corpus with this model", f"retrieval-cl index {config.folder}"),
            ("Search", f'retrieval-cl search {config.folder / "index"} "your question"'),
            ("Use it from Python", f'SentenceTransformer("{config.folder / "model"}")'),
        ],
    )


def describe_data(data: RetrievalData) -> str:
    """Name and sizes, in one line."""
    splits = ", ".join(f"{len(qrels.judged_queries):,} {split}" for split, qrels in data.splits.items())
    return f"{data.name}: {len(data.passages):,} passages; queries: {splits}"


def data_facts(data: RetrievalData, *, what: str | None = None) -> DataFacts:
    """Sizes of the data and what it was read from, by default its name."""
    sizes = {split: len(qrels.judged_queries) for split, qrels in data.splits.items()}
    packages = data.made_by.get("packages", {})
    return DataFacts(
        num_passages=len(data.passages),
        num_train_queries=sizes.get("train", 0),
        num_dev_queries=sizes.get("dev", 0),
        num_test_queries=sizes.get("test", 0),
        what=f"the data set '{data.name}'" if what is None else what,
        packages={str(k): str(v) for k, v in packages.items()} if isinstance(packages, Mapping) else {},
    )


def describe_encoder(config: RunConfig, *, dim: int) -> str:
    """The model in a few words."""
    if config.encoder.kind == "static":
        return f"a static encoder of {dim} dimensions"
    return f"{config.encoder.path} ({dim} dimensions)"


def settings_facts(config: RunConfig) -> dict[str, str]:
    """Settings worth showing."""
    training, method, mining = config.training, config.method, config.mining
    shown = {
        "learning rate": f"{training.lr:g}, {training.schedule}",
        "batch": f"{training.batch_size} queries",
        "temperature": f"{method.temperature:g}{' (learned)' if method.learned_temperature else ''}",
        "rounds": str(training.rounds),
        "seed": str(training.seed),
    }
    if mines(training):
        drawn = f"{mining.num_negatives} a query ({training.num_negatives} a step)"
        shown["mined negatives"] = (
            f"{drawn}, ranks {mining.rank_min} to {mining.last_rank}, {mining.sampling}"
        )
    return shown


def provenance(command: str, *, settings: Mapping[str, str]) -> Provenance:
    """The command, now, and this machine."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return Provenance(command=command, made_at=now, hardware=describe_machine(), settings=settings)


def score_groups(scores: ScoreSamples) -> Scores:
    """The samples under the names that figures know. Random passages are what a batch offers as negatives."""
    return {"positives": scores.positives, "in-batch": scores.random, "mined": scores.negatives}


def query_examples(
    data: RetrievalData, judged: Judged, hits: Mapping[str, Hits], *, number: int = NUM_EXAMPLES
) -> list[Example]:
    """A seeded sample of judged queries with the first hits of each system."""
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.choice(len(judged.queries), min(number, len(judged.queries)), replace=False))
    right, texts = judged.right(), data.queries.full()
    return [
        Example(
            query=texts[judged.queries[place]],
            found={name: found_passages(data, one, place, right=right[place]) for name, one in hits.items()},
            right=_found(data, int(right[place][0]), score=0.0, is_right=True),
        )
        for place in chosen.tolist()
    ]


def found_passages(
    data: RetrievalData, hits: Hits, place: int, *, right: Sequence[int] | np.ndarray
) -> list[Found]:
    """The first hits of one query, as a reader sees them."""
    wanted = {int(row) for row in right}
    pairs = zip(hits.rows[place, :SHOWN_HITS].tolist(), hits.scores[place, :SHOWN_HITS].tolist(), strict=True)
    return [_found(data, row, score=score, is_right=row in wanted) for row, score in pairs if row >= 0]


def negative_examples(
    data: RetrievalData, table: NegativeTable, *, number: int = NUM_EXAMPLES
) -> list[Example]:
    """A seeded sample of train queries with the negatives drawn for them."""
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.choice(len(table), min(number, len(table)), replace=False))
    positives = data.splits["train"].relevant(len(data.queries))
    texts = data.queries.full()
    return [
        Example(
            query=texts[table.queries[line]],
            found={
                "negatives": [
                    _found(data, row, score=score, is_right=False)
                    for row, score in zip(table.rows[line].tolist(), table.scores[line].tolist(), strict=True)
                    if row >= 0
                ]
            },
            right=_found(data, int(positives[int(table.queries[line])][0]), score=0.0, is_right=True),
        )
        for line in chosen.tolist()
    ]


def _found(data: RetrievalData, row: int, *, score: float, is_right: bool) -> Found:
    title = data.passages.titles[row] or data.passages.ids[row]
    return Found(title, data.passages.texts[row], score, is_right)

"""The main job: from the docs on this disk to a retriever, its index, and a report on how good it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from retrieval_cl.config import RunConfig
from retrieval_cl.core.files import write_json
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.reporting.quickstart_report import QuickstartReport, write_report
from retrieval_cl.runs import reports
from retrieval_cl.runs.dual_encoder import TrainedRun, train_dual_encoder
from retrieval_cl.runs.evaluate import PER_QUERY, RESULTS, Say
from retrieval_cl.runs.held_out import BM25, HeldOut
from retrieval_cl.runs.index import write_passage_index
from retrieval_cl.runs.machine import describe_machine
from retrieval_cl.runs.prepare import PreparedText, prepare_text
from retrieval_cl.runs.recipes import control_config, with_source
from retrieval_cl.runs.run_folder import MODEL, REPORT, enter
from retrieval_cl.runs.scoreboard import Scoreboard
from retrieval_cl.runs.search import Answer, Searcher, find_index
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.runs.train import encoder_for
from retrieval_cl.sources.beir import write_beir
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.sources.load import load
from retrieval_cl.sources.records import RetrievalData
from retrieval_cl.training.progress import Display

DATA, INDEX, CONTROL = "data", "index", "control"
MINED = "mined"
QUESTIONS = (
    "split a string into words and keep the quotes",
    "how do I read a csv file in chunks",
    "cosine learning rate schedule with warm-up",
)
_WHAT = "the docstrings of the Python packages on this machine"
_CONTROL_IS = (
    "The control is trained on the same pairs, from the same first weights, for the same number of steps "
    "and with the same settings, but with in-batch negatives alone; its learning rate and temperature were "
    "chosen on dev over the same grid."
)


@final
@dataclass(frozen=True, eq=False)
class QuickstartResult:
    """What `quickstart` leaves.

    Attributes:
        folder: with model/, index/, data/, report.html, results.json.
        scoreboard: BM25, control, mined and hybrid on the test queries.
        answers: what the example questions found.
        seconds: wall seconds of all of it.
        peak_rss_gib: peak resident memory, in GiB.
    """

    folder: Path
    scoreboard: Scoreboard
    answers: Sequence[Answer]
    seconds: float
    peak_rss_gib: float


def quickstart(
    config: RunConfig,
    *,
    with_control: bool = True,
    command: str = "retrieval-cl quickstart",
    display: Display | None = None,
    say: Say = lambda line: None,
) -> QuickstartResult:
    """Reads docs, trains with mined negatives and without, measures both beside BM25, indexes, reports.

    Args:
        config: `recipes.quickstart_config()`, or any config whose data has train, dev and test.
        with_control: also train with in-batch negatives alone, for as many steps.
        command: what the user typed, for the report.
        display: where training shows its progress.
        say: gets a line now and then.

    Raises:
        InputError: settings or data are wrong.
        Interrupted: Ctrl-C came while training; a checkpoint is kept.
        TrainingFailed: the loss diverged or the vectors collapsed.
    """
    watch = Stopwatch()
    folder, source = config.folder, config.source
    with watch("read docs"):
        say("reading the docs of the installed packages")
        data = load(config.source)
        write_beir(data, folder / DATA)
        config = with_source(config, folder / DATA)
    say(reports.describe_data(data))
    enter(folder, config, resume=False, overwrite=True)
    with watch("tokenizer and first vectors"):
        encoder = encoder_for(config, data)
    with watch("tokens"):
        text = prepare_text(data, encoder)
    first = copy.deepcopy(encoder) if with_control else None
    runs = {MINED: _train(text, encoder, config, what="with mined negatives", display=display, say=say)}
    encoder.save(folder / MODEL)
    if first is not None:
        settings = control_config(config, folder=folder / CONTROL, steps=runs[MINED].steps)
        enter(settings.folder, settings, resume=False, overwrite=True)
        what = "the control, in-batch negatives alone"
        runs[CONTROL] = _train(text, first, settings, what=what, display=display, say=say)
        first.save(settings.folder / MODEL)
    with watch("evaluate"):
        say("measuring on the test queries, beside BM25 tuned on dev")
        held_out = HeldOut.of(data, config)
        found = {name: held_out.search(runs[name].encoder) for name in (CONTROL, MINED) if name in runs}
        scoreboard = held_out.compare(found, best=MINED)
    with watch("index"):
        write_passage_index(
            folder / INDEX,
            data.passages,
            encoder,
            model=folder / MODEL,
            words=held_out.words,
            config=config.index,
            data=data,
        )
    with watch("example searches"):
        searcher = Searcher(find_index(folder / INDEX))
        answers = [searcher.search(question, k=3) for question in QUESTIONS]
    story = _Story(config, source, data, held_out, scoreboard, runs, command)
    story.write(folder, seconds=_stages(watch, runs), watch=watch)
    return QuickstartResult(folder, scoreboard, answers, watch.total, peak_rss_gib())


@final
@dataclass(frozen=True, eq=False)
class _Story:
    """All that the report and the results tell; `source` is what `data` was read from."""

    config: RunConfig
    source: SourceConfig
    data: RetrievalData
    held_out: HeldOut
    scoreboard: Scoreboard
    runs: Mapping[str, TrainedRun]
    command: str

    def write(self, folder: Path, *, seconds: Mapping[str, float], watch: Stopwatch) -> None:
        """Writes report, per-query results and, last, results.json."""
        with watch("report"):
            self.scoreboard.write_per_query(folder / PER_QUERY, self.data)
            write_report(folder / REPORT, self._report(seconds, total=watch.total))
        write_json(folder / RESULTS, self._results({**seconds, **watch.seconds}, total=watch.total))

    def _report(self, seconds: Mapping[str, float], *, total: float) -> QuickstartReport:
        run = self.runs[MINED]
        settings = {**reports.settings_facts(self.config), "BM25": self.held_out.words.describe()}
        return QuickstartReport(
            data=reports.data_facts(self.data, what=_WHAT),
            model=reports.describe_encoder(self.config, dim=run.encoder.dim),
            dim=run.encoder.dim,
            results=self.scoreboard.results,
            provenance=reports.provenance(self.command, settings=settings),
            control_is=_CONTROL_IS,
            comparisons=self.scoreboard.comparisons(),
            arms=[each.arm(name) for name, each in sorted(self.runs.items())],
            scores={} if run.scores is None else reports.score_groups(run.scores),
            examples=reports.query_examples(self.data, self.scoreboard.judged, self._shown()),
            how_chosen="Ten test queries, drawn at random with a fixed seed.",
            mining=run.rounds,
            seconds=seconds,
            total_seconds=total,
            peak_rss_gib=peak_rss_gib(),
            next_commands=[
                ("Search", f'retrieval-cl search {self.config.folder / INDEX} "how do I ..."'),
                ("Measure again", f"retrieval-cl eval {self.config.folder}"),
                ("Train on your own data", "retrieval-cl train --data FOLDER --output runs/mine"),
                ("Use it from Python", f'SentenceTransformer("{self.config.folder / MODEL}")'),
            ],
        )

    def _shown(self) -> Mapping[str, Hits]:
        names = {
            BM25: "BM25",
            CONTROL: "without mining (the control)",
            MINED: "after mining",
        }
        return {
            shown: self.scoreboard.hits[name] for name, shown in names.items() if name in self.scoreboard.hits
        }

    def _results(self, seconds: Mapping[str, float], *, total: float) -> dict[str, Any]:
        found = self.scoreboard.to_json()
        p_of = {
            (one["system"], one["than"]): one["p"]
            for one in found["comparisons"]
            if one["metric"] == "recall@10"
        }
        queries = {split: len(qrels.judged_queries) for split, qrels in self.data.splits.items()}
        return {
            "num_passages": len(self.data.passages),
            "num_train_queries": queries.get("train", 0),
            "num_dev_queries": queries.get("dev", 0),
            "num_test_queries": len(self.scoreboard.judged.queries),
            "seconds": total,
            "peak_rss_gib": peak_rss_gib(),
            **found["systems"],
            **{
                f"p_{MINED}_vs_{than}": p_of[MINED, than] for than in (CONTROL, BM25) if (MINED, than) in p_of
            },
            "comparisons": found["comparisons"],
            "bm25_settings": self.held_out.words.describe(),
            "seconds_by_stage": dict(seconds),
            "seconds_by_arm": {name: sum(run.seconds.values()) for name, run in self.runs.items()},
            "steps": {name: run.steps for name, run in self.runs.items()},
            "dev": {name: dict(run.dev) for name, run in self.runs.items()},
            "machine": describe_machine(),
            "command": self.command,
            "settings": {
                **self.config.model_dump(mode="json"),
                "source": self.source.model_dump(mode="json"),
            },
            "made_by": dict(self.data.made_by),
        }


def _train(
    text: PreparedText,
    encoder: TextEncoder,
    config: RunConfig,
    *,
    what: str,
    display: Display | None,
    say: Say,
) -> TrainedRun:
    say(f"training {what}")
    return train_dual_encoder(
        text,
        encoder,
        method=config.method,
        mining=config.mining,
        training=config.training,
        evaluation=config.evaluation,
        output=config.folder,
        display=display,
    )


def _stages(watch: Stopwatch, runs: Mapping[str, TrainedRun]) -> dict[str, float]:
    """Stage -> seconds in the order of the work: what came before training, each arm's, the rest."""
    before = ("read docs", "tokenizer and first vectors", "tokens")
    arms = {f"{name}: {stage}": value for name, run in runs.items() for stage, value in run.seconds.items()}
    rest = {stage: value for stage, value in watch.seconds.items() if stage not in before}
    return {**{stage: watch.seconds[stage] for stage in before}, **arms, **rest}

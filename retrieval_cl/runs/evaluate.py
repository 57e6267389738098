"""Evaluates a model on a split, with tuned BM25 and the fusion of the two beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from retrieval_cl.config import RunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.kinds import NAMES
from retrieval_cl.runs.held_out import BM25, HYBRID, HeldOut
from retrieval_cl.runs.machine import describe_machine, on_device
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.scoreboard import Scoreboard
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.sources.load import load

RESULTS = "results.json"
PER_QUERY = "per_query.jsonl"
Say = Callable[[str], None]


@final
@dataclass(frozen=True, eq=False)
class Evaluated:
    """What an evaluation leaves: the systems, and the folder with results.json and per_query.jsonl."""

    scoreboard: Scoreboard
    folder: Path

    def text(self) -> str:
        """The outcome, for a terminal."""
        return self.scoreboard.text()


def evaluate(
    config: RunConfig,
    model: Model,
    *,
    against: Model | None = None,
    output: Path,
    write_trec: bool = False,
    say: Say = lambda line: None,
) -> Evaluated:
    """Measures the model on the split of `config.evaluation`, beside BM25 and the hybrid of the two.

    Args:
        config: its sections source, evaluation and index (k1 and b of BM25) are read.
        model: what is evaluated.
        against: a second model, which the first is tested against.
        output: folder for results.json and per_query.jsonl.
        write_trec: also write what each system found as TREC runs.
        say: gets a line now and then.

    Raises:
        InputError: a model cannot be loaded, or the data is missing, broken or without that split.
    """
    watch = Stopwatch()
    if against is not None and against.embeds != "texts":
        kind = NAMES[against.embeds]
        raise InputError(f"--against {against.path}: a model of {kind}, the first is one of texts")
    models = name_models(model, against, taken=(BM25, HYBRID))
    encoders = {name: on_device(load_encoder(one.path)) for name, one in models.items()}
    with watch("data"):
        data = load(config.source)
    with watch(BM25):
        held_out = HeldOut.of(data, config)
    say(f"{data.name}: {len(data.passages):,} passages, {len(held_out.judged.queries):,} queries")
    say(f"BM25: {held_out.words.describe()}")
    found = {}
    for name, encoder in encoders.items():
        with watch(name):
            found[name] = held_out.search(encoder)
    with watch("tests"):
        scoreboard = held_out.compare(found, best=next(iter(models)))
    scoreboard.write_per_query(output / PER_QUERY, data)
    if write_trec:
        scoreboard.write_runs(output, data)
    facts = {
        "data": data.name,
        "num_passages": len(data.passages),
        "models": {name: one.path for name, one in models.items()},
        "bm25": held_out.words.describe(),
        **scoreboard.to_json(),
        "seconds": watch.total,
        "seconds_by_stage": watch.seconds,
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
    }
    write_json(output / RESULTS, facts)
    return Evaluated(scoreboard, output)


def name_models(model: Model, against: Model | None, *, taken: Sequence[str]) -> dict[str, Model]:
    """The models by names for tables: short ones, where these are clear and not taken.

    Raises:
        InputError: both are the same.
    """
    models = [model] if against is None else [model, against]
    if len({one.path for one in models}) < len(models):
        raise InputError(f"--against {model.path}: the same model as the first")
    short = {one.name: one for one in models}
    is_clear = len(short) == len(models) and not short.keys() & set(taken)
    return short if is_clear else {one.path: one for one in models}

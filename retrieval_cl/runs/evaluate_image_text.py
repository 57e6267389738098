"""Evaluates an image-text model on a split: retrieval in both directions and zero-shot classification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from retrieval_cl.config import ImageTextRunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import write_json
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.runs.evaluate import RESULTS, Say, name_models
from retrieval_cl.runs.image_text_board import ImageTextBoard, describe_protocol
from retrieval_cl.runs.image_text_scores import ImageTextTasks
from retrieval_cl.runs.machine import describe_machine, on_device
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stopwatch import Stopwatch, peak_rss_gib
from retrieval_cl.runs.train_image_text import measure, write_values
from retrieval_cl.sources.image_text.load import load_image_text
from retrieval_cl.sources.image_text.relations import find_matches


@final
@dataclass(frozen=True, eq=False)
class ImageTextEvaluated:
    """What an evaluation leaves: the models, and the folder with results.json and the values a query."""

    board: ImageTextBoard
    folder: Path

    def text(self) -> str:
        """The outcome, for a terminal."""
        return self.board.text()


def evaluate_image_text(
    config: ImageTextRunConfig,
    model: Model,
    *,
    against: Model | None = None,
    output: Path,
    write_trec: bool = False,
    say: Say = lambda line: None,
) -> ImageTextEvaluated:
    """Measures a model on the split of `config.evaluation`.

    Args:
        config: its sections source and evaluation are read.
        model: what is evaluated.
        against: a second model, which the first is tested against.
        output: folder for results.json, text_to_image.jsonl and image_to_text.jsonl.
        write_trec: refused: ties are counted against the model, which a list of ranks cannot say.
        say: gets a line now and then.

    Raises:
        InputError: a model cannot be loaded or is of another kind, or the data is missing, broken, or without
            that split.
    """
    if write_trec:
        raise InputError("--trec has no effect on images with texts: ties count against the model")
    if against is not None and against.embeds != "image_text":
        raise InputError(f"--against {against.path}: no model of images with texts, as the first is")
    watch = Stopwatch()
    models = name_models(model, against, taken=())
    encoders = {name: on_device(load_image_text_encoder(Path(one.path))) for name, one in models.items()}
    with watch("data"):
        data = load_image_text(config.source)
        matches = find_matches(data)
        evaluation = config.evaluation
        tasks = ImageTextTasks.of(data, matches, split=evaluation.split, templates=evaluation.templates)
    task = tasks.cross_modal
    say(
        f"{data.name}: {len(task.images):,} images and {len(task.captions):,} distinct captions of split "
        f"'{evaluation.split}'"
    )
    found = {}
    for name, encoder in encoders.items():
        with watch(name):
            found[name] = measure(tasks, encoder, data)
    first, *others = models
    with watch("tests"):
        board = ImageTextBoard.of(
            found,
            pairs=[(first, other) for other in others],
            protocol=describe_protocol(tasks, split=evaluation.split),
        )
        facts = {
            "data": data.name,
            "split": evaluation.split,
            "models": {name: one.path for name, one in models.items()},
            **board.to_json(first),
        }
    write_values(output, board, tasks, data)
    facts |= {
        "seconds": watch.total,
        "seconds_by_stage": watch.seconds,
        "peak_rss_gib": peak_rss_gib(),
        "machine": describe_machine(),
    }
    write_json(output / RESULTS, facts)
    return ImageTextEvaluated(board, output)

"""Which story a command tells: of texts, of images, or of images with texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from retrieval_cl.config import AnyRunConfig, ImageRunConfig, ImageTextRunConfig, refuse_overrides
from retrieval_cl.core.errors import InputError
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.index import Indexed, Progress
from retrieval_cl.runs.models import Model, config_for, image_config_for, image_text_config_for
from retrieval_cl.training.progress import Display


@runtime_checkable
class Done(Protocol):
    """What training or evaluation leaves."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    def text(self) -> str:
        """The outcome, for a terminal."""


@runtime_checkable
class Story(Protocol):
    """Trains from beginning to end; see `train`, `train_images` and `train_image_text`."""

    def __call__(
        self, *, resume: bool, overwrite: bool, command: str, display: Display | None, say: Say
    ) -> Done:
        """The arguments and errors are those of `runs.train.train`."""


def train_story(config: AnyRunConfig) -> Story:
    """The training that the config asks for."""
    if isinstance(config, ImageRunConfig):
        from retrieval_cl.runs.train_images import train_images

        return partial(train_images, config)
    if isinstance(config, ImageTextRunConfig):
        from retrieval_cl.runs.train_image_text import train_image_text

        return partial(train_image_text, config)
    from retrieval_cl.runs.train import train

    return partial(train, config)


@runtime_checkable
class IndexStory(Protocol):
    """Indexes; see `index_corpus`, `index_images` and `index_image_text`."""

    def __call__(self, *, output: Path, copy_model: bool, say: Say, progress: Progress | None) -> Indexed:
        """The arguments and errors are those of `runs.index.index_corpus`."""


def index_story(
    model: Model,
    *,
    config: Path | None,
    overrides: Sequence[str],
    data: str | None,
    corpus: Path | None,
    store: Path | None = None,
) -> IndexStory:
    """What indexes with the model. Raises InputError as `config_for` does."""
    if store is not None and model.embeds != "texts":
        raise InputError(
            f"--store {store} has no effect: {model.name} embeds images; vectors of texts are kept"
        )
    if model.embeds == "images":
        from retrieval_cl.runs.index_images import index_images

        if corpus is not None:
            raise InputError(f"--corpus {corpus}: {model.name} is a model of images; name them by --data")
        settings = image_config_for(model, config=config, overrides=overrides, data=data)
        return partial(index_images, settings, model)
    if model.embeds == "image_text":
        from retrieval_cl.runs.image_text_contents import what_to_index
        from retrieval_cl.runs.index_image_text import index_image_text

        if corpus is not None:
            raise InputError(f"--corpus {corpus}: {model.name} is a model of images with texts; use --data")
        wanted = what_to_index(model, config=config, overrides=overrides, data=data)
        return partial(index_image_text, wanted, model)
    from retrieval_cl.runs.index import index_corpus

    texts = config_for(model, config=config, overrides=overrides, data=data, needs_data=corpus is None)
    return partial(index_corpus, texts, model, corpus=corpus, store=store)


@runtime_checkable
class EvalStory(Protocol):
    """Measures a model; see `evaluate`, `evaluate_images`, `evaluate_image_text`."""

    def __call__(self, *, against: Model | None, write_trec: bool, say: Say) -> Done:
        """The arguments and errors are those of `runs.evaluate.evaluate`."""


def eval_story(
    model: Model, *, config: Path | None, overrides: Sequence[str], data: str | None, output: Path | None
) -> EvalStory:
    """What measures the model; results go to `output`, by default below its run. Raises as `config_for`."""
    if model.embeds == "images":
        from retrieval_cl.runs.evaluate_images import evaluate_images

        refuse_overrides(overrides, used=("source", "evaluation"), command="eval")
        images = image_config_for(model, config=config, overrides=overrides, data=data)
        folder = output or model.folder / f"eval-{images.evaluation.split}"
        return partial(evaluate_images, images, model, output=folder)
    if model.embeds == "image_text":
        from retrieval_cl.runs.evaluate_image_text import evaluate_image_text

        refuse_overrides(overrides, used=("source", "evaluation"), command="eval")
        pairs = image_text_config_for(model, config=config, overrides=overrides, data=data)
        folder = output or model.folder / f"eval-{pairs.evaluation.split}"
        return partial(evaluate_image_text, pairs, model, output=folder)
    from retrieval_cl.runs.evaluate import evaluate

    texts = config_for(model, config=config, overrides=overrides, data=data)
    return partial(evaluate, texts, model, output=output or model.folder / f"eval-{texts.evaluation.split}")

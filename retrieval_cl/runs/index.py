"""Indexes a corpus: vectors, words, texts, and the model they belong to, in one folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from retrieval_cl.config import RunConfig
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.indexing.approximate import Approximate, FaissSettings
from retrieval_cl.indexing.budget import parse_memory
from retrieval_cl.indexing.faiss_index import check_factory, load_faiss
from retrieval_cl.indexing.folder import check_place, write_index
from retrieval_cl.indexing.recall import MOST_QUERIES
from retrieval_cl.kinds import NAMES
from retrieval_cl.runs.config import IndexConfig
from retrieval_cl.runs.corpus import read_texts
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.kept_vectors import KeptVectors, check_store
from retrieval_cl.runs.machine import on_device
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.systems import Words, weigh_words
from retrieval_cl.sources.load import load
from retrieval_cl.sources.records import RetrievalData, Texts

Progress = Callable[[int, int], None]
_ENOUGH_QUERIES = 1000


@final
@dataclass(frozen=True)
class Indexed:
    """What `index` leaves.

    Attributes:
        folder: the index.
        num_passages: in it.
        words: BM25's settings; None where it holds no words.
        seconds: in all.
        faiss: factory, measured recall and search settings; None where it is searched exactly.
        what: is in it.
        asked: an example of what it is asked by, as it stands on a command line.
    """

    folder: Path
    num_passages: int
    words: str | None
    seconds: float
    faiss: str | None = None
    what: str = "passages"
    asked: str = '"your question"'


def index_corpus(
    config: RunConfig,
    model: Model,
    *,
    corpus: Path | None = None,
    store: Path | None = None,
    output: Path,
    copy_model: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Indexed:
    """Indexes the corpus of the config's data set, or of a file.

    Args:
        config: its section index is read, and source where `corpus` is None.
        model: embeds the passages, and later the queries.
        corpus: a file of texts (`runs.corpus.read_texts`).
        store: folder that keeps the vectors; None: they are not kept.
        output: the index; one that stands there is replaced.
        copy_model: put a copy of the model into the index, so that it may travel alone.
        say: gets a line now and then.
        progress: called with passages done and passages in all.

    Raises:
        InputError: data or model are missing or broken, FAISS refuses the factory, or the output holds
            something else than an index.
    """
    watch = Stopwatch()
    check_place(output)
    check_store(store, output=output)
    refuse_what(config.index, model)
    faiss = faiss_settings(config.index)
    data = load(config.source) if corpus is None else None
    passages = data.passages if data is not None else read_texts(_given(corpus))
    encoder = on_device(load_encoder(model.path))
    if faiss is not None:
        check_factory(
            faiss.factory,
            key="index.factory",
            num_rows=len(passages),
            dim=encoder.dim,
            memory_bytes=faiss.memory_bytes,
            target_recall=faiss.target_recall,
        )
    say(f"{len(passages):,} passages; encoding")
    words = weigh_words(passages, data=data, config=config.index) if config.index.lexical else None
    built = write_passage_index(
        output,
        passages,
        encoder,
        model=Path(model.path) if model.is_folder else None,
        words=words,
        config=config.index,
        copy_model=copy_model,
        store=store,
        data=data,
        say=say,
        progress=progress,
    )
    return Indexed(
        output,
        len(passages),
        words=None if words is None else words.describe(),
        seconds=watch.total,
        faiss=None if built is None else built.text(),
    )


def write_passage_index(
    output: Path,
    passages: Texts,
    encoder: TextEncoder,
    *,
    model: Path | None,
    words: Words | None,
    config: IndexConfig,
    copy_model: bool = False,
    store: Path | None = None,
    data: RetrievalData | None = None,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Approximate | None:
    """Encodes passages and writes the index.

    Args:
        output: the index.
        passages: of it.
        encoder: embeds them.
        model: the encoder's folder; None keeps a copy inside.
        words: of BM25; None for none.
        config: of the index.
        copy_model: keep a copy in any case.
        store: folder that keeps the vectors; None: they are not kept.
        data: whose queries measure the recall; None for none.
        say: gets a line now and then.
        progress: called with passages done and passages in all.

    Returns:
        The FAISS index with its recall, measured with queries of the data set where there are any.
    """
    faiss = faiss_settings(config)
    if faiss is not None:
        load_faiss(faiss.factory)  # a module that is missing is known before hours of encoding
    texts = passages.full()
    vectors = (
        encoder.encode(texts, kind="passage", progress=progress)
        if store is None
        else KeptVectors(store, say).vectors(texts, encoder=encoder, kind="passage", progress=progress)
    )
    _refuse_zero(vectors, passages)
    asked = None if faiss is None or data is None else _some_queries(data, seed=faiss.seed)
    with tempfile.TemporaryDirectory() as temporary:
        if model is None:
            # A model named by an id has no folder of its own: the index keeps it.
            model, copy_model = Path(temporary) / "model", True
            encoder.save(model)
        return write_index(
            output,
            vectors=vectors,
            ids=passages.ids,
            titles=passages.titles,
            texts=passages.texts,
            fingerprint=encoder.fingerprint(),
            encoder_path=model,
            copy_encoder=copy_model,
            faiss=faiss,
            query_vectors=encoder.encode(asked, kind="query") if asked else None,
            lexical=None if words is None else words.lexical,
            made_by={
                "data": None if data is None else data.name,
                "source": {} if data is None else dict(data.made_by),
                "bm25": None if words is None else words.describe(),
            },
            say=say,
        )


def refuse_what(config: IndexConfig, model: Model) -> None:
    """Raises InputError where the choice between images and captions is made for another model."""
    if "what" in config.model_fields_set:
        raise InputError(
            f"index.what: {config.what} has no effect: {model.name} is a model of {NAMES[model.embeds]} "
            "alone; remove it"
        )


def faiss_settings(config: IndexConfig) -> FaissSettings | None:
    """The FAISS index that a config asks for; None: exact search.

    Raises:
        InputError: a setting of FAISS without a factory, or a memory that is no size.
    """
    given = {
        name: getattr(config, name)
        for name in ("target_recall", "recall_k", "memory", "gpus", "gpu_fp16")
        if getattr(config, name) is not None
    }
    if config.factory is None:
        if given:
            raise InputError(
                f"index.{next(iter(given))} has no effect on exact search; set index.factory, as to 'auto'"
            )
        return None
    if config.gpus == 0 and config.gpu_fp16 is not None:
        raise InputError("index.gpu_fp16 has no effect without GPUs; drop it, or index.gpus 0")
    return FaissSettings(
        factory=config.factory,
        target_recall=config.target_recall,
        k=config.recall_k or 10,
        memory_bytes=None if config.memory is None else parse_memory(str(config.memory)),
        num_gpus=config.gpus,
        fp16=config.gpu_fp16 is not False,
    )


def _some_queries(data: RetrievalData, *, seed: int) -> list[str]:
    """A sample of queries to measure with: not those of the test split where others are enough."""
    rows = np.arange(len(data.queries))
    if "test" in data.splits:
        others = np.setdiff1d(rows, data.splits["test"].judged_queries)
        rows = others if len(others) >= _ENOUGH_QUERIES else rows
    chosen = np.random.default_rng(seed).choice(rows, min(MOST_QUERIES, len(rows)), replace=False)
    texts = data.queries.full()
    return [texts[row] for row in np.sort(chosen)]


def _refuse_zero(vectors: np.ndarray, passages: Texts) -> None:
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero):
        raise InputError(
            f"passage '{passages.ids[zero[0]]}': its vector is zero ({len(zero)} of {len(passages)} are): "
            f"the model knows no token in {passages.texts[zero[0]]!r:.40}; remove it"
        )


def _given(corpus: Path | None) -> Path:
    assert corpus is not None
    return corpus

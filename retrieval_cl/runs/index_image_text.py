"""Indexes images, or captions, with a model that embeds both, so that either kind finds the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.image_text import ImageTextEncoder
from retrieval_cl.encoders.load_image_text import load_image_text_encoder
from retrieval_cl.indexing.approximate import FaissSettings
from retrieval_cl.indexing.faiss_index import check_factory, load_faiss
from retrieval_cl.indexing.folder import check_place, write_index
from retrieval_cl.indexing.recall import MOST_QUERIES
from retrieval_cl.indexing.thumbnails import LONGEST_SIDE
from retrieval_cl.runs.config import IndexConfig
from retrieval_cl.runs.evaluate import Say
from retrieval_cl.runs.image_text_contents import Contents, ToIndex, read_contents
from retrieval_cl.runs.index import Indexed, Progress, faiss_settings
from retrieval_cl.runs.index_images import pictures, refuse_words
from retrieval_cl.runs.models import Model
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.systems import Words, weigh_words
from retrieval_cl.sources.normalise import text_groups
from retrieval_cl.sources.records import Texts

_ENOUGH_QUERIES = 1000


@final
@dataclass(frozen=True, eq=False)
class _Rows:
    """What stands in the index, row by row; `queries` are of the other kind, to measure FAISS with."""

    shown: Texts
    vectors: Float32[np.ndarray, "N D"]
    queries: Float32[np.ndarray, "Q D"] | None
    words: Words | None = None


def index_image_text(
    wanted: ToIndex,
    model: Model,
    *,
    output: Path,
    copy_model: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Indexed:
    """Indexes the images of a source, of all splits, or their distinct captions.

    Args:
        wanted: the source, of images with captions or without, and the settings of the index.
        model: embeds images and texts, of the index and later those that are asked for.
        output: the index; one that stands there is replaced.
        copy_model: put a copy of the model into the index, so that it may travel alone.
        say: gets a line now and then.
        progress: called with images or captions done and all of them.

    Raises:
        InputError: data or model are missing or broken, there are no captions where they are wanted, FAISS
            refuses the factory, or the output holds something else than an index.
    """
    watch = Stopwatch()
    check_place(output)
    config = wanted.index
    if config.what == "images":
        refuse_words(config)
    faiss = faiss_settings(config)
    encoder = load_image_text_encoder(Path(model.path)).to("cuda" if torch.cuda.is_available() else "cpu")
    side = max(encoder.size, LONGEST_SIDE)
    contents = read_contents(wanted.source, side=side, fit=encoder.fit, say=say)
    if config.what == "images":
        rows = _image_rows(contents, encoder, faiss=faiss, say=say, progress=progress)
    else:
        rows = _caption_rows(contents, encoder, config=config, faiss=faiss, say=say, progress=progress)
    built = write_index(
        output,
        vectors=rows.vectors,
        ids=rows.shown.ids,
        titles=rows.shown.titles,
        texts=rows.shown.texts,
        fingerprint=encoder.fingerprint(),
        encoder_path=Path(model.path),
        copy_encoder=copy_model,
        faiss=faiss,
        query_vectors=rows.queries,
        lexical=None if rows.words is None else rows.words.lexical,
        thumbnails=pictures(contents.images) if config.what == "images" else None,
        embeds="image_text",
        made_by={
            "data": contents.name,
            "source": dict(contents.made_by),
            # Image files that are asked by are fitted as these were.
            "size": contents.size,
            "fit": contents.fit,
            "bm25": None if rows.words is None else rows.words.describe(),
        },
        say=say,
    )
    return Indexed(
        output,
        len(rows.vectors),
        words=None if rows.words is None else rows.words.describe(),
        seconds=watch.total,
        faiss=None if built is None else built.text(),
        what=config.what,
        asked='"words, or an image file" --sheet hits.html',
    )


def _image_rows(
    contents: Contents,
    encoder: ImageTextEncoder,
    *,
    faiss: FaissSettings | None,
    say: Say,
    progress: Progress | None,
) -> _Rows:
    """All images; all captions of each are its text."""
    _check_faiss(faiss, num_rows=len(contents.ids), dim=encoder.dim)
    say(f"{len(contents.ids):,} images; encoding")
    vectors = encoder.encode_images(contents.images, progress=progress)
    texts = ["\n".join(captions) for captions in contents.captions_of()]
    queries = None
    if faiss is not None and contents.captions:
        distinct = np.unique(text_groups(contents.captions))
        is_test = np.isin(contents.caption_images[distinct], contents.test)
        chosen = _sample(distinct, is_test=is_test, seed=faiss.seed)
        queries = encoder.encode_texts([contents.captions[row] for row in chosen.tolist()])
    return _Rows(Texts(list(contents.ids), texts, list(contents.titles)), vectors, queries)


def _caption_rows(
    contents: Contents,
    encoder: ImageTextEncoder,
    *,
    config: IndexConfig,
    faiss: FaissSettings | None,
    say: Say,
    progress: Progress | None,
) -> _Rows:
    """Captions, each once however many images share it; the title names its image."""
    if not contents.captions:
        raise InputError(
            f"index.what: captions: '{contents.name}' is of images without captions; name a source that has "
            "them"
        )
    captions = distinct_captions(contents)
    _check_faiss(faiss, num_rows=len(captions), dim=encoder.dim)
    say(f"{len(captions):,} distinct captions of {len(contents.captions):,}; encoding")
    vectors = encoder.encode_texts(captions.texts, progress=progress)
    captions, vectors = _known(captions, vectors, say=say)
    queries = None
    if faiss is not None:
        images = np.arange(len(contents.ids), dtype=np.int64)
        chosen = _sample(images, is_test=np.isin(images, contents.test), seed=faiss.seed)
        queries = encoder.encode_images(contents.images, rows=chosen)
    words = None
    if config.lexical:
        # Without titles, which are names of files.
        words = weigh_words(Texts(captions.ids, captions.texts), config=config)
    return _Rows(captions, vectors, queries, words)


def _known(
    captions: Texts, vectors: Float32[np.ndarray, "N D"], *, say: Say
) -> tuple[Texts, Float32[np.ndarray, "M D"]]:
    """Without captions of which the model knows no token: their vectors are zero, and nothing finds them.

    Raises:
        InputError: it knows none of any.
    """
    kept = np.flatnonzero(vectors.any(axis=1))
    if len(kept) == len(captions):
        return captions, vectors
    first = captions.texts[int(np.flatnonzero(~vectors.any(axis=1))[0])]
    said = f"the model knows no token, such as {first!r:.60}"
    if not len(kept):
        raise InputError(f"captions of which {said}: these are all of them")
    say(f"left out: {len(captions) - len(kept):,} captions of which {said}")
    columns = (captions.ids, captions.texts, captions.titles)
    return Texts(*([column[row] for row in kept.tolist()] for column in columns)), vectors[kept]


def distinct_captions(contents: Contents) -> Texts:
    """The captions of different words, with the first image of each as title and how many others share it.

    The id is that of the image, '#', and the number of the caption among those of the image.
    """
    rows, counts = np.unique(text_groups(contents.captions), return_counts=True)
    images = contents.caption_images[rows]
    numbers = rows - np.searchsorted(contents.caption_images, images)
    names = [contents.ids[image] for image in images.tolist()]
    return Texts(
        [f"{name}#{number}" for name, number in zip(names, numbers.tolist(), strict=True)],
        [contents.captions[row] for row in rows.tolist()],
        [
            f"{name} and {count - 1:,} more" if count > 1 else name
            for name, count in zip(names, counts.tolist(), strict=True)
        ],
    )


def _check_faiss(faiss: FaissSettings | None, *, num_rows: int, dim: int) -> None:
    """Raises InputError for what FAISS refuses, before anything is encoded."""
    if faiss is None:
        return
    load_faiss(faiss.factory)
    check_factory(
        faiss.factory,
        key="index.factory",
        num_rows=num_rows,
        dim=dim,
        memory_bytes=faiss.memory_bytes,
        target_recall=faiss.target_recall,
    )


def _sample(
    rows: Int64[np.ndarray, " R"], *, is_test: Bool[np.ndarray, " R"], seed: int
) -> Int64[np.ndarray, " S"]:
    """Rows to measure with, ascending: not those of the test split where others are enough."""
    others = rows[~is_test]
    among = others if len(others) >= _ENOUGH_QUERIES else rows
    return np.sort(np.random.default_rng(seed).choice(among, min(MOST_QUERIES, len(among)), replace=False))

"""A FAISS index with its recall: chosen, built, measured, and tuned until it reaches a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.faiss_choice import Choice, choose
from retrieval_cl.indexing.faiss_gpu import Say
from retrieval_cl.indexing.faiss_index import FaissIndex, Knob
from retrieval_cl.indexing.recall import Recall, Truth
from retrieval_cl.indexing.rescore import rescore

# Hits asked of FAISS beyond k, as its order at the k-th place is not ours.
_MARGIN = 16
# Codes that lost too much are made good by looking at more of what they find.
_PER_HIT = (1, 2, 4, 8, 16)


@final
@dataclass(frozen=True)
class FaissSettings:
    """How an index is built.

    Attributes:
        factory: FAISS factory string, or 'auto'.
        target_recall: least recall@k, 0 to 1; None: measured alone.
        k: of that recall, in hits.
        memory_bytes: bound on what the build allocates beside the vectors; None: none.
        seed: of samples and k-means.
        num_gpus: that train, sort rows into lists and search; None: all that FAISS sees.
        fp16: vectors and tables on them in float16.
        section: of the config that sets this, for messages.
    """

    factory: str = "auto"
    target_recall: float | None = None
    k: int = 10
    memory_bytes: int | None = None
    seed: int = 0
    num_gpus: int | None = 0
    fp16: bool = True
    section: str = "index"


@final
@dataclass(frozen=True)
class SearchSettings:
    """How widely to search.

    Attributes:
        knob: nprobe or efSearch; None where the index has neither.
        value: of the knob.
        per_hit: candidates of FAISS that are scored exactly for each hit.
    """

    knob: str | None
    value: int | None
    per_hit: int = 1

    def text(self) -> str:
        """One line for the screen."""
        knob = "" if self.knob is None else f"{self.knob} {self.value}, "
        return f"{knob}{self.per_hit} candidate{'s' if self.per_hit > 1 else ''} a hit"

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {**({} if self.knob is None else {self.knob: self.value}), "candidates_per_hit": self.per_hit}


@final
@dataclass(frozen=True, eq=False)
class Approximate:
    """A built index, its settings, and what it was measured to reach, on the GPUs that were asked for."""

    index: FaissIndex
    choice: Choice
    settings: SearchSettings
    recall: Recall
    target: float | None
    num_gpus: int | None = 0
    fp16: bool = True

    def text(self) -> str:
        """One line for the screen."""
        target = "" if self.target is None else f", target {self.target:g}"
        return f"FAISS {self.choice.factory} ({self.settings.text()}): {self.recall.text()}{target}"

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "factory": self.choice.factory,
            "reason": self.choice.reason,
            "search": self.settings.to_json(),
            "recall": self.recall.to_json() | {"target": self.target},
            "gpus": self.num_gpus,
            "fp16": self.fp16,
        }


def build_approximate(
    vectors: Float32[np.ndarray, "N D"],
    settings: FaissSettings,
    *,
    queries: Float32[np.ndarray, "Q D"] | None = None,
    say: Say = lambda line: None,
) -> Approximate:
    """Builds an index, measures its recall, and widens its search as far as a target asks for.

    The recall is that of the parameters chosen, on the queries they were chosen by: one number is fitted, to
    thousands of queries, so that it is not flattered by more than its interval shows.

    Args:
        vectors: the corpus; may be a memory map.
        settings: how.
        queries: real ones to measure with; None: rows of the corpus, which do not find themselves.
        say: gets a line on what 'auto' chose and where something is not done as asked.

    Raises:
        InputError: FAISS refuses, the memory does not do, or the target cannot be reached.
    """
    choice = _choose(vectors, settings)
    if settings.factory == "auto":
        say(f"FAISS {choice.factory}: {choice.reason}")
    memory = exact.DEFAULT_MEMORY if settings.memory_bytes is None else settings.memory_bytes
    index = FaissIndex.build(
        vectors,
        factory=choice.factory,
        seed=settings.seed,
        memory_bytes=settings.memory_bytes,
        num_gpus=settings.num_gpus,
        say=say,
    )
    index = index.on_gpus(num_gpus=settings.num_gpus, fp16=settings.fp16, say=say)
    # Beside the index a quarter of the memory is free.
    room = max(exact.SMALLEST_MEMORY, memory // 4)
    truth = Truth.find(vectors, queries=queries, k=settings.k, seed=settings.seed, memory_bytes=room)
    search, recall = (
        _measured(index, vectors, truth)
        if settings.target_recall is None
        else _tuned(
            index,
            vectors,
            truth,
            target=settings.target_recall,
            choice=choice,
            section=settings.section,
        )
    )
    if search.value is not None:
        index.turn(search.value)
    return Approximate(
        index, choice, search, recall, settings.target_recall, settings.num_gpus, settings.fp16
    )


def search_near(
    index: FaissIndex,
    queries: Float32[np.ndarray, "Q D"],
    vectors: Float32[np.ndarray, "N D"],
    *,
    k: int,
    per_hit: int = 1,
) -> Hits:
    """Searches by the index, and scores and orders what it finds as exact search does.

    Args:
        index: over `vectors`.
        queries: rows.
        vectors: the corpus; may be a memory map.
        k: hits a query; -1 and -inf fill up where there are fewer.
        per_hit: candidates scored for each hit, and 16 more where FAISS gives so many.

    Raises:
        InputError: FAISS on a GPU does not give so many hits.
    """
    least = min(k * per_hit, len(index))
    near = index.search(queries, k=max(least, min(least + _MARGIN, index.most_hits)))
    return rescore(queries, vectors, rows=near.rows, k=k)


def cheapest(reaches: Callable[[int], bool], *, start: int, most: int) -> int | None:
    """The least value from `start` on that reaches: doubles until one does, then bisects what lies between.

    Args:
        reaches: whether a value does; once it does, larger ones are taken to. Asked once a value.
        start: first value tried.
        most: last one.

    Returns:
        A value that reaches; None where `most` does not.
    """
    below, value = start - 1, min(start, most)
    while not reaches(value):
        if value == most:
            return None
        below, value = value, min(2 * value, most)
    while value - below > 1:
        middle = (below + value) // 2
        below, value = (below, middle) if reaches(middle) else (middle, value)
    return value


def _choose(vectors: Float32[np.ndarray, "N D"], settings: FaissSettings) -> Choice:
    if settings.factory != "auto":
        return Choice(settings.factory, "as given")
    return choose(
        len(vectors),
        vectors.shape[1],
        memory_bytes=settings.memory_bytes,
        target_recall=settings.target_recall,
    )


def _measured(
    index: FaissIndex, vectors: Float32[np.ndarray, "N D"], truth: Truth
) -> tuple[SearchSettings, Recall]:
    knob = index.knob
    search = SearchSettings(*((None, None) if knob is None else (knob.name, knob.value)))
    return search, _recall(index, vectors, truth, search)


def _tuned(
    index: FaissIndex,
    vectors: Float32[np.ndarray, "N D"],
    truth: Truth,
    *,
    target: float,
    choice: Choice,
    section: str,
) -> tuple[SearchSettings, Recall]:
    able = [each for each in _PER_HIT if min((truth.k + 1) * each, len(index)) <= index.most_hits]
    steps = [SearchSettings(*_most(index.knob), per_hit) for per_hit in able or _PER_HIT[:1]]
    for step in steps:
        tuned = _tune_knob(index, vectors, truth, target=target, widest=step)
        if tuned is not None:
            return tuned
        # What the widest search of all misses is out of reach: asked before the steps between.
        if step is steps[0]:
            recall = _recall(index, vectors, truth, steps[-1])
            if recall.mean < target:
                break
    raise InputError(
        f"FAISS '{choice.factory}' reaches {recall.text()} at most ({steps[-1].text()}); the target is "
        f"{target:g}: take a finer {section}.factory (SQ8 or SQfp16 for PQ, a longer HNSW, Flat), "
        f"or lower {section}.target_recall"
    )


def _tune_knob(
    index: FaissIndex,
    vectors: Float32[np.ndarray, "N D"],
    truth: Truth,
    *,
    target: float,
    widest: SearchSettings,
) -> tuple[SearchSettings, Recall] | None:
    """The cheapest value that reaches the target with so many candidates a hit; None where none does."""
    measured: dict[SearchSettings, Recall] = {}

    def reaches(value: int) -> bool:
        search = replace(widest, value=None if widest.value is None else value)
        measured[search] = _recall(index, vectors, truth, search)
        return measured[search].mean >= target

    # An index without a knob has one setting.
    found = cheapest(reaches, start=1, most=widest.value or 1)
    if found is None:
        return None
    search = replace(widest, value=None if widest.value is None else found)
    return search, measured[search]


def _most(knob: Knob | None) -> tuple[str | None, int | None]:
    return (None, None) if knob is None else (knob.name, knob.most)


def _recall(
    index: FaissIndex, vectors: Float32[np.ndarray, "N D"], truth: Truth, search: SearchSettings
) -> Recall:
    if search.value is not None:
        index.turn(search.value)
    # One more than k: a row of the corpus finds itself.
    hits = search_near(index, truth.queries, vectors, k=truth.k + 1, per_hit=search.per_hit)
    return truth.compare(hits)

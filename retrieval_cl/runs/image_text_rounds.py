"""Mining between images and captions at a round's start: what the weights confuse in either direction."""

from __future__ import annotations

from time import perf_counter
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing.budget import DEFAULT_MEMORY
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.near import Barred
from retrieval_cl.mining.noise import hash_noise
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.searchers import build_search, exact_search
from retrieval_cl.mining.table import SOURCES, NegativeTable
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.image_text_reverse import Found, through_captions
from retrieval_cl.runs.image_text_texts import TrainTexts
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.relations import Matches
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Run

# Of `hash_noise`: the miner draws from the streams below it.
_COPIES = 5
_PAIRS = 1 << 16


@runtime_checkable
class RowVectors(Protocol):
    """Unit rows under the current weights; `image_text_vectors.ImageTextVectors` gives them."""

    def images(self, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
        """Of image rows."""

    def captions(self, rows: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
        """Of caption rows."""


@final
class ImageTextMiner:
    """Mines for a run; `Remine` calls it. Train images are the queries, distinct train captions the passages.

    Beside the captions that score high with an image ("dense"), `mining.quotas` may ask for those of other
    images that score high with the image's captions ("other"). No candidate is a caption known to match the
    image or, with `mining.near_vector`, the caption of an image whose vector has that cosine, or more, with
    the query's.

    Attributes:
        rounds: what each mining did, oldest first.
    """

    def __init__(
        self,
        vectors: RowVectors,
        *,
        data: ImageTextData,
        matches: Matches,
        mining: MiningConfig,
        watch: Stopwatch,
        log: MetricsLog,
    ) -> None:
        """`matches` says of the train images of `data` which captions are right."""
        self._vectors = vectors
        self._texts = TrainTexts.of(data, matches)
        self._mining = mining
        self._watch = watch
        self._log = log
        self.rounds: list[MiningRound] = []

    def __call__(self, run: Run) -> NegativeTable:
        """The table of the run's round: image rows as queries, caption rows as negatives."""
        with self._watch("mine"):
            started, texts, config = perf_counter(), self._texts, self._mining
            images, captions = self._vectors.images(texts.images), self._vectors.captions(texts.first)
            reverse = None
            if "other" in config.source_quotas:
                depth = min(config.depth, len(images))
                search = self._search(images, captions, run)
                reverse = through_captions(images, captions, texts.own, search=search, depth=depth)
            table, counts = mine(
                images,
                captions,
                queries=texts.images,
                positives=texts.known,
                groups=np.arange(len(captions), dtype=np.int64),
                # Images are what it is about here, not the captions' vectors.
                config=config.model_copy(update={"near_vector": None}),
                seed=run.config.seed,
                round=run.round,
                extra=None if reverse is None else {"other": reverse.texts},
                search=self._search(captions, images, run),
                barred=None
                if config.near_vector is None
                else {"near_image": near_images(images, texts.holders, cosine=config.near_vector)},
            )
            self.rounds.append(MiningRound(run.round, counts, seconds=perf_counter() - started))
            self._log.append(run.step, round=run.round, mining=counts.to_dict())
            return self._of_captions(table, reverse, seed=run.config.seed)

    def _search(
        self, vectors: Float32[np.ndarray, "M D"], queries: Float32[np.ndarray, "Q D"], run: Run
    ) -> Search:
        if self._mining.factory is not None:
            return build_search(vectors, self._mining, query_vectors=queries, seed=run.config.seed)
        return exact_search(vectors, device=str(run.device), memory_bytes=DEFAULT_MEMORY)

    def _of_captions(self, table: NegativeTable, reverse: Found | None, *, seed: int) -> NegativeTable:
        """The same table by caption rows of the data set instead of distinct texts.

        What was found through an image keeps that image's caption; of what was found as a text, one of the
        captions that have it is drawn, by seed, round and query.
        """
        noise = hash_noise(seed, table.round, table.queries[:, None], table.rows, stream=_COPIES)
        rows = np.where(table.rows >= 0, self._texts.draw(np.maximum(table.rows, 0), noise), -1)
        if reverse is not None:
            line, column = np.nonzero(table.sources == SOURCES.index("other"))
            place = (reverse.texts.rows[line] == table.rows[line, column, None]).argmax(axis=1)
            found = self._texts.caption_of(reverse.images[line, place], table.rows[line, column])
            rows[line, column] = found
        return NegativeTable(table.round, table.queries, rows, table.scores, table.ranks, table.sources)


def near_images(images: Float32[np.ndarray, "N D"], holders: Ragged, *, cosine: float) -> Barred:
    """Pairs of an image and a text of which an image with at least this cosine is a holder.

    Args:
        images: unit rows.
        holders: text -> images that have it as a caption.
        cosine: of the vectors of images.
    """
    score = vector_scorer(images, images)

    def barred(numbers: Int64[np.ndarray, " P"], texts: Int64[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        found = np.zeros(len(texts), dtype=bool)
        for start in range(0, len(texts), _PAIRS):
            others = holders.take(texts[start : start + _PAIRS])
            owner = start + others.rows
            found[owner[score(numbers[owner], others.values) >= np.float32(cosine)]] = True
        return found

    return barred

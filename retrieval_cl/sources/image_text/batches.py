"""The training source for images with captions: batches of pairs, pure in (seed, round, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.sources.epochs import host_generator, slice_of_rank, take_tokens, walk
from retrieval_cl.sources.image_text.clusters import cluster_order, fill_clusters
from retrieval_cl.sources.image_text.data import ImageTextData
from retrieval_cl.sources.image_text.edits import NUMBERS, TRIES, CaptionEdits
from retrieval_cl.sources.image_text.relations import Matches
from retrieval_cl.sources.image_text.word_neighbours import find_neighbours
from retrieval_cl.sources.images.image_views import MakeView, take_to
from retrieval_cl.sources.negatives import Kinds, NegativeLines, Negatives

# Streams of random numbers; 0 and 1 are those of `clusters`.
CAPTIONS, NEGATIVES, VIEWS, EDITS = 2, 3, 4, 5
_KINDS = Kinds("image", "caption", "an image")


@final
class ImageTextBatches:
    """Batches of train images, each with one of its captions.

    Each epoch (one pass over the train images) has a fresh order, which runs on from round to round; a ragged
    last batch is dropped. Images of one item stand in different batches where that can be; where not, their
    ids are equal and the id rule masks them. Without a table of negatives each image appears once an epoch.
    """

    def __init__(
        self,
        data: ImageTextData,
        *,
        matches: Matches,
        tokenize: Callable[[Sequence[str]], Ragged],
        prepare: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B 3 S S"]],
        augment: MakeView | None,
        batch_size: int,
        device: torch.device,
        num_negatives: int = 0,
        mined: Literal["pairs", "texts"] = "pairs",
        edits: int = 0,
    ) -> None:
        """Prepares the train images and their captions.

        Args:
            data: of all splits; the split train is trained on.
            matches: who matches whom.
            tokenize: token ids of texts.
            prepare: the evaluation transform.
            augment: takes its place, with a random view of each image; None: there is none.
            batch_size: pairs a step, mined ones included, over all ranks.
            device: where the images are made ready.
            num_negatives: of an image, drawn from the table given to `batches`, whose queries are image rows
                and whose rows are caption rows.
            mined: how they join: as `pairs`, with the images of those captions, the batch being made of
                clusters of an image and its mined pairs; or as `texts`, captions alone.
            edits: edited captions of an image.

        Raises:
            InputError: the batch is larger than the number of train images or no multiple of a cluster, or a
                train caption has no token.
        """
        rows = data.splits["train"]
        if not 1 <= batch_size <= len(rows):
            raise InputError(f"batch size {batch_size}; valid is 1 to {len(rows)} (the train images)")
        self.cluster = 1 + num_negatives if mined == "pairs" else 1
        if batch_size % self.cluster:
            raise InputError(
                f"batch size {batch_size}: not a multiple of {self.cluster}, an image and its "
                f"{num_negatives} mined pairs"
            )
        self.data = data
        self.rows = rows
        self.matches = matches
        self.tokenize = tokenize
        self.make_image = _AsItIs(prepare) if augment is None else augment
        self.batch_size = batch_size
        self.device = device
        self.num_negatives = num_negatives
        self.num_edits = edits
        self.tokens = tokenize(data.captions)
        captions = data.captions_of(rows)
        _refuse_empty(self.tokens, captions, data)
        self._bounds = np.searchsorted(data.caption_images, np.arange(len(data.images) + 1))
        if edits:
            neighbours = find_neighbours([data.captions[row] for row in captions.tolist()])
            self._edits = CaptionEdits(data.captions, matches=matches, neighbours=neighbours)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the train images."""
        return len(self.rows) // self.batch_size

    def batches(
        self,
        negatives: Negatives | None,
        *,
        seed: int,
        round: int,
        num_steps: int,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        steps_before: int = 0,
    ) -> Iterator[Batch]:
        """The batches of steps `start_step` to `num_steps - 1` of a round; the same number on every rank.

        Args:
            negatives: the table of the round; None gives plain pairs.
            seed: of the run.
            round: the number of the round.
            num_steps: steps of the whole round.
            start_step: where to go on within the round.
            rank: which slice of each batch to give.
            world: number of slices.
            steps_before: steps of all rounds before: where in the order of images this one begins.

        Raises:
            InputError: `world` does not divide the batch, the table has too few columns or is of other data.
        """
        mine = slice_of_rank(self.batch_size, rank=rank, world=world)
        table = None
        if negatives is not None and self.num_negatives:
            assert negatives.round <= round, (negatives.round, round)
            table = NegativeLines.of(
                negatives,
                count=self.num_negatives,
                num_queries=len(self.data.images),
                num_candidates=len(self.data.captions),
                kinds=_KINDS,
            )
        ordered = walk(
            lambda epoch: cluster_order(
                self.rows,
                self.matches.image_items[self.rows],
                batch_size=self.batch_size,
                cluster=self.cluster,
                seed=seed,
                epoch=epoch,
            ),
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            start=steps_before + start_step,
            stop=steps_before + num_steps,
        )
        return (self._batch(rows, table, [seed, round, step], mine) for step, rows in ordered)

    def _batch(
        self, rows: Int64[np.ndarray, " B"], table: NegativeLines | None, key: list[int], mine: slice
    ) -> Batch:
        # Every rank draws for the whole batch and makes its slice: joined, they are the batch of one rank.
        images, captions = self._pairs(rows, table, key)
        pixels = self.make_image(
            take_to(self.data.images, images[mine], self.device),
            generator=host_generator([*key, VIEWS]),
            first=mine.start,
            total=len(images),
        )
        image_ids = torch.from_numpy(self.matches.image_items[images[mine]])
        shown = Pixels(pixels, cost=_tokens_of(pixels))
        views = {"image": View(shown, image_ids), "text": self._texts(captions[mine])}
        if table is not None and self.cluster == 1:
            drawn = table.draw(images, self.num_negatives, np.random.default_rng([*key, NEGATIVES]))
            views["negative"] = self._texts(drawn[mine].reshape(-1))
        if self.num_edits:
            views["edit"] = self._edited(images, captions, key, mine)
        known = self.matches.known.take(images).padded()
        return Batch(views, torch.from_numpy(known[mine]))

    def _pairs(
        self, rows: Int64[np.ndarray, " B"], table: NegativeLines | None, key: list[int]
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        """Images and captions of the whole batch."""
        seeds = rows[: len(rows) // self.cluster]
        mined = np.full((len(seeds), 0), -1, dtype=np.int64)
        if table is not None and self.cluster > 1:
            # All of them, in random order: one may fall out because the batch has its image already.
            generator = np.random.default_rng([*key, NEGATIVES])
            mined = table.draw(seeds, table.rows.shape[1], generator)
        images, captions = fill_clusters(
            rows,
            mined,
            cluster=self.cluster,
            caption_images=self.data.caption_images,
            items=self.matches.image_items,
        )
        generator = np.random.default_rng([*key, CAPTIONS])
        own = generator.integers(self._bounds[images], self._bounds[images + 1])
        return images, np.where(captions < 0, own, captions)

    def _texts(self, rows: Int64[np.ndarray, " R"]) -> View:
        """Captions; where there is none, one token with the id -1."""
        ids = np.where(rows < 0, -1, self.matches.caption_items[np.maximum(rows, 0)])
        return View(take_tokens(self.tokens, rows), torch.from_numpy(ids))

    def _edited(
        self,
        images: Int64[np.ndarray, " B"],
        captions: Int64[np.ndarray, " B"],
        key: list[int],
        mine: slice,
    ) -> View:
        """Edited captions, each an item of its own."""
        shape = (len(images), self.num_edits, TRIES, NUMBERS)
        numbers = np.random.default_rng([*key, EDITS]).random(shape)
        texts = self._edits.make(captions[mine], images[mine], numbers[mine])
        made = np.array([text is not None for text in texts], dtype=bool)
        tokens = self.tokenize([text for text in texts if text is not None]) if made.any() else self.tokens
        items = 1 + self.matches.caption_items.max() + mine.start * self.num_edits + np.arange(len(texts))
        rows = np.where(made, np.cumsum(made) - 1, -1)
        return View(take_tokens(tokens, rows), torch.from_numpy(np.where(made, items, -1)))


@final
class _AsItIs:
    """A `MakeView` that draws nothing."""

    def __init__(self, prepare: Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B 3 S S"]]) -> None:
        self._prepare = prepare

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """The evaluation transform, wherever the images stand in their batch."""
        return self._prepare(images)


def _tokens_of(pixels: Float[Tensor, "B 3 S S"]) -> int:
    """What an image counts as where a batch is cut by tokens: one a patch of 16 x 16 pixels."""
    return max(1, pixels.shape[2] * pixels.shape[3] // 256)


def _refuse_empty(tokens: Ragged, captions: Int64[np.ndarray, " T"], data: ImageTextData) -> None:
    if len(empty := captions[tokens.counts[captions] == 0]):
        row = int(empty[0])
        raise InputError(
            f"{len(empty)} train captions have no token the text tower knows, first that of image "
            f"'{data.ids[data.caption_images[row]]}': '{data.captions[row]}'; leave them out or take another "
            "tokenizer"
        )

"""The training source for images: batches of two augmented views, pure in (seed, round, step)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.images import Images
from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.sources.epochs import host_generator, slice_of_rank, walk
from retrieval_cl.sources.images.order import epoch_order
from retrieval_cl.sources.negatives import Kinds, NegativeLines, Negatives

# Streams of random numbers that must not coincide.
ORDER, NEGATIVES, VIEWS = 0, 1, 2
_KINDS = Kinds("image", "image", "an image")


@runtime_checkable
class MakeView(Protocol):
    """A random view of each image; `augmentation.augment.Augmentation` is the same."""

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """Normalised, on the images' device; the generator lives on the host.

        The images stand at `first` and after it in a batch of `total`, for all of which numbers are drawn.
        """


@runtime_checkable
class MakeViews(Protocol):
    """Two random views of each image; `augmentation.augment.TwoViews` makes them."""

    @property
    def first(self) -> MakeView:
        """What makes the first of the two."""

    def __call__(
        self,
        images: UInt8[Tensor, "B 3 H W"],
        *,
        generator: torch.Generator,
        first: int = 0,
        total: int | None = None,
    ) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
        """Both views, as `MakeView` makes one."""


@final
class ImageViews:
    """Batches of train images, each twice.

    Each epoch (one pass over the train images) has a fresh order, which runs on from round to round, and each
    image appears once; a ragged last batch is dropped. Copies of one item stand in different batches where
    that can be; where not, their ids are equal and the id rule masks them.
    """

    def __init__(
        self,
        images: Images,
        *,
        rows: Int64[np.ndarray, " n"],
        groups: Int64[np.ndarray, " N"],
        augment: MakeViews,
        batch_size: int,
        device: torch.device,
        num_negatives: int = 0,
    ) -> None:
        """Prepares the train images.

        Args:
            images: of all splits.
            rows: those of the train split, and of no other.
            groups: item id of each of `images`; copies share one.
            augment: makes the views.
            batch_size: images a step, over all ranks.
            device: where the views are made.
            num_negatives: negatives an image, drawn from the table given to `batches`, which names rows of
                `images`.

        Raises:
            InputError: the batch is larger than the number of train images.
        """
        assert len(images) == len(groups), (len(images), len(groups))
        if not 1 <= batch_size <= len(rows):
            raise InputError(f"batch size {batch_size}; valid is 1 to {len(rows)} (the train images)")
        self.images = images
        self.rows = rows
        self.groups = groups
        self.augment = augment
        self.batch_size = batch_size
        self.device = device
        self.num_negatives = num_negatives

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
            negatives: the table of the round; None gives batches without the view "negative".
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
                num_queries=len(self.images),
                num_candidates=len(self.images),
                kinds=_KINDS,
            )
        ordered = walk(
            lambda epoch: epoch_order(
                self.rows,
                self.groups[self.rows],
                batch_size=self.batch_size,
                generator=np.random.default_rng([seed, epoch, ORDER]),
            ),
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            start=steps_before + start_step,
            stop=steps_before + num_steps,
        )
        return (self._batch(rows, table, [seed, round, step], mine) for step, rows in ordered)

    def _batch(
        self,
        rows: Int64[np.ndarray, " B"],
        table: NegativeLines | None,
        key: list[int],
        mine: slice,
    ) -> Batch:
        generator = host_generator([*key, VIEWS])
        # Every rank draws for the whole batch and makes its slice: joined, they are the batch of one rank.
        view_a, view_b = self.augment(
            self._pixels(rows[mine]), generator=generator, first=mine.start, total=len(rows)
        )
        ids = torch.from_numpy(self.groups[rows[mine]])
        views = {"view_a": View(Pixels(view_a), ids), "view_b": View(Pixels(view_b), ids)}
        if table is not None:
            drawn = table.draw(rows, self.num_negatives, np.random.default_rng([*key, NEGATIVES]))
            views["negative"] = self._negatives(drawn, generator, mine)
        return Batch(views, ids[:, None])

    def _negatives(self, drawn: Int64[np.ndarray, "B n"], generator: torch.Generator, mine: slice) -> View:
        """Negatives as the first view shows them; where there is none, any image with the id -1."""
        ours = drawn[mine].reshape(-1)
        rows = np.where(ours < 0, 0, ours)
        ids = np.where(ours < 0, -1, self.groups[rows])
        shown = self.augment.first(
            self._pixels(rows), generator=generator, first=mine.start * drawn.shape[1], total=drawn.size
        )
        return View(Pixels(shown), torch.from_numpy(ids))

    def _pixels(self, rows: Int64[np.ndarray, " R"]) -> UInt8[Tensor, "R 3 H W"]:
        return take_to(self.images, rows, self.device)


def take_to(images: Images, rows: Int64[np.ndarray, " R"], device: torch.device) -> UInt8[Tensor, "R 3 H W"]:
    """The given images on a device, which the host does not wait for."""
    taken = images.take(rows)
    if taken.device.type == "cpu" and device.type == "cuda":
        # From any other memory the host would wait for the device.
        taken = taken.pin_memory()
    return taken.to(device, non_blocking=True)

"""The training source for text: batches of (query, positive, negatives), pure in (seed, round, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.views import Batch, View
from retrieval_cl.sources.records import Qrels

# Streams of random numbers that must not coincide.
ORDER, DRAW = 0, 1


@runtime_checkable
class Negatives(Protocol):
    """A table of negatives, fixed for a round.

    A table of mined negatives has more to it; this is what training needs of it.
    """

    @property
    def round(self) -> int:
        """The round it was made for."""

    @property
    def queries(self) -> Int64[np.ndarray, " N"]:
        """Query row of each line, distinct."""

    @property
    def rows(self) -> Int64[np.ndarray, "N n"]:
        """Passage rows of the negatives of each line; -1 where there is none."""


@final
class TextPairs:
    """Batches of training pairs.

    Each epoch (one pass over the train queries) has a fresh order, which runs on from round to round. Each
    query appears once, with one of its positives drawn at random; a ragged last batch is dropped. Ids are
    groups of passages, so that copies of one text are one item; it may stand in a batch twice, the id rule
    masks it.
    """

    def __init__(
        self,
        query_tokens: Ragged,
        passage_tokens: Ragged,
        *,
        qrels: Qrels,
        groups: Int64[np.ndarray, " M"],
        query_groups: Int64[np.ndarray, " Q"],
        batch_size: int,
        num_negatives: int,
    ) -> None:
        """Prepares the train queries, their positives and known ids.

        Args:
            query_tokens: token ids of each query, of all splits.
            passage_tokens: token ids of each passage.
            qrels: judgements of the train split, and of no other.
            groups: item id of each passage; copies share one.
            query_groups: queries that share a group share their known ids.
            batch_size: pairs a step, over all ranks.
            num_negatives: negatives a pair, drawn from the table given to `batches`.

        Raises:
            InputError: the batch is larger than the number of train queries.
        """
        assert len(query_tokens) == len(query_groups) and len(passage_tokens) == len(groups)
        assert len(passage_tokens.values), "no passage has a token"
        self.query_tokens = query_tokens
        self.passage_tokens = passage_tokens
        self.groups = groups
        self.batch_size = batch_size
        self.num_negatives = num_negatives
        self.train_queries = qrels.judged_queries
        self.positives = qrels.relevant(len(query_tokens))
        self.known = _known_ids(self.positives, groups, query_groups)
        if not 1 <= batch_size <= len(self.train_queries):
            raise InputError(
                f"batch size {batch_size}; valid is 1 to {len(self.train_queries)} (the train queries)"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the train queries."""
        return len(self.train_queries) // self.batch_size

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
            round: the number of the round; each round has its own draws.
            num_steps: steps of the whole round, over as many epochs as that takes.
            start_step: where to go on within the round.
            rank: which slice of each batch to give.
            world: number of slices.
            steps_before: steps of all rounds before, where in the order of queries this one begins: rounds
                shorter than an epoch would else meet some queries often and others never.

        Raises:
            InputError: `world` does not divide the batch, the table has too few columns or is of other data.
        """
        if self.batch_size % world:
            raise InputError(
                f"batch size {self.batch_size} cannot be cut into {world} equal parts, one for each rank"
            )
        table = None
        if negatives is not None and self.num_negatives:
            assert negatives.round <= round, (negatives.round, round)
            table = _Table(negatives.rows, self._table_lines(negatives))
        share = self.batch_size // world
        mine = slice(rank * share, (rank + 1) * share)
        # Every rank draws for the whole batch and takes its slice: joined, they are the batch of one rank.
        ordered = self._ordered(seed=seed, start=steps_before + start_step, stop=steps_before + num_steps)
        return (
            self._batch(queries, table, np.random.default_rng([seed, round, step - steps_before, DRAW]), mine)
            for step, queries in ordered
        )

    def _ordered(self, *, seed: int, start: int, stop: int) -> Iterator[tuple[int, Int64[np.ndarray, " B"]]]:
        """Number and queries of each step of the run, its first step being 0."""
        step = start
        while step < stop:
            epoch, place = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng([seed, 0, epoch, ORDER]).permutation(self.train_queries)
            for begin in range(place, min(self.steps_per_epoch, place + stop - step)):
                yield step, order[begin * self.batch_size : (begin + 1) * self.batch_size]
                step += 1

    def _batch(
        self,
        queries: Int64[np.ndarray, " B"],
        table: _Table | None,
        generator: np.random.Generator,
        mine: slice,
    ) -> Batch:
        starts, ends = self.positives.offsets[queries], self.positives.offsets[queries + 1]
        positives = self.positives.values[generator.integers(starts, ends)]
        known = self.known.take(queries).padded()
        views = {
            "query": View(self.query_tokens.take(queries[mine]), torch.from_numpy(queries[mine])),
            "positive": self._passages(positives[mine]),
        }
        if table is not None:
            views["negative"] = self._passages(
                table.draw(queries, self.num_negatives, generator)[mine].reshape(-1)
            )
        return Batch(views, torch.from_numpy(known[mine]))

    def _passages(self, rows: Int64[np.ndarray, " R"]) -> View:
        # Where there is no passage the tower still needs an input it can embed: one token, with the id -1.
        none = rows < 0
        ids = np.where(none, -1, self.groups[np.where(none, 0, rows)])
        return View(_take_tokens(self.passage_tokens, rows), torch.from_numpy(ids))

    def _table_lines(self, negatives: Negatives) -> Int64[np.ndarray, " Q"]:
        """Query row -> line of the table, -1 where it has none."""
        columns = negatives.rows.shape[1]
        if columns < self.num_negatives:
            raise InputError(
                f"{self.num_negatives} negatives a pair, but the table of negatives has {columns} columns"
            )
        last_query, last_passage = negatives.queries.max(initial=-1), negatives.rows.max(initial=-1)
        if last_query >= len(self.query_tokens) or last_passage >= len(self.passage_tokens):
            raise InputError(
                f"the table of negatives is of other data: it names query row {last_query} and passage row "
                f"{last_passage}, here are {len(self.query_tokens)} queries and "
                f"{len(self.passage_tokens)} passages"
            )
        lines = np.full(len(self.query_tokens), -1, dtype=np.int64)
        lines[negatives.queries] = np.arange(len(negatives.queries))
        return lines


@dataclass(frozen=True, eq=False)
class _Table:
    """Rows of negatives, and the line of each query in them (-1: none)."""

    rows: Int64[np.ndarray, "N n"]
    lines: Int64[np.ndarray, " Q"]

    def draw(
        self, queries: Int64[np.ndarray, " B"], count: int, generator: np.random.Generator
    ) -> Int64[np.ndarray, "B count"]:
        """Draws `count` different columns for each query; one that holds -1 only after all that do not."""
        lines = self.lines[queries]
        there = lines >= 0
        rows = np.full((len(queries), self.rows.shape[1]), -1, dtype=np.int64)
        rows[there] = self.rows[lines[there]]
        keys = generator.random(rows.shape) + (rows < 0)
        return np.take_along_axis(rows, np.argsort(keys, axis=1, kind="stable")[:, :count], axis=1)


def _take_tokens(tokens: Ragged, rows: Int64[np.ndarray, " R"]) -> Ragged:
    """Token rows; a row of -1 gives the first token of all."""
    none = rows < 0
    rows = np.where(none, 0, rows)
    starts = np.where(none, 0, tokens.offsets[rows])
    counts = np.where(none, 1, tokens.offsets[rows + 1] - tokens.offsets[rows])
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    index = np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], counts)
    return Ragged(offsets, tokens.values[index])


def _known_ids(
    positives: Ragged, groups: Int64[np.ndarray, " M"], query_groups: Int64[np.ndarray, " Q"]
) -> Ragged:
    """Query row -> item ids of the positives of every query in its group."""
    num_groups = int(query_groups.max(initial=-1)) + 1
    by_group = Ragged.from_pairs(query_groups[positives.rows], groups[positives.values], num_groups)
    return by_group.take(query_groups)

"""The training source for text: batches of (query, positive, negatives), pure in (seed, round, step)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.views import Batch, View
from retrieval_cl.sources.epochs import slice_of_rank, take_tokens, walk
from retrieval_cl.sources.negatives import Kinds, NegativeLines, Negatives
from retrieval_cl.sources.records import Qrels

# Streams of random numbers that must not coincide.
ORDER, DRAW = 0, 1


_KINDS = Kinds("query", "passage", "a pair")


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
        mine = slice_of_rank(self.batch_size, rank=rank, world=world)
        table = None
        if negatives is not None and self.num_negatives:
            assert negatives.round <= round, (negatives.round, round)
            table = NegativeLines.of(
                negatives,
                count=self.num_negatives,
                num_queries=len(self.query_tokens),
                num_candidates=len(self.passage_tokens),
                kinds=_KINDS,
            )
        # Every rank draws for the whole batch and takes its slice: joined, they are the batch of one rank.
        ordered = walk(
            lambda epoch: np.random.default_rng([seed, 0, epoch, ORDER]).permutation(self.train_queries),
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            start=steps_before + start_step,
            stop=steps_before + num_steps,
        )
        return (
            self._batch(queries, table, np.random.default_rng([seed, round, step - steps_before, DRAW]), mine)
            for step, queries in ordered
        )

    def _batch(
        self,
        queries: Int64[np.ndarray, " B"],
        table: NegativeLines | None,
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
        return View(take_tokens(self.passage_tokens, rows), torch.from_numpy(ids))


def _known_ids(
    positives: Ragged, groups: Int64[np.ndarray, " M"], query_groups: Int64[np.ndarray, " Q"]
) -> Ragged:
    """Query row -> item ids of the positives of every query in its group."""
    num_groups = int(query_groups.max(initial=-1)) + 1
    by_group = Ragged.from_pairs(query_groups[positives.rows], groups[positives.values], num_groups)
    return by_group.take(query_groups)

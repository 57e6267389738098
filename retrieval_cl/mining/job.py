"""What is done for some queries at a time: refuse candidates by the rules, draw, fill at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import filler, rules, sampling
from retrieval_cl.mining.candidates import score_kept
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.near import Barred, Near, any_near, drop_barred, drop_near
from retrieval_cl.mining.quotas import Limits
from retrieval_cl.mining.rules import Candidates, Rule, apply_rules
from retrieval_cl.mining.scorers import Scorer
from retrieval_cl.mining.table import SOURCES, NegativeTable


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the rules left of the candidates of some queries, and the columns that were drawn.

    Attributes:
        left: candidates that have passed every rule are kept.
        removed: rule -> candidates of each query it removed.
        columns: of `left`; -1 where too few are kept.
        positive_scores: of the positives of the queries, by the judge; None where no one asks for them.
    """

    left: Candidates
    removed: Mapping[str, Int64[np.ndarray, " Q"]]
    columns: Int64[np.ndarray, "Q n"]
    positive_scores: Float32[np.ndarray, " V"] | None

    @property
    def short(self) -> Bool[np.ndarray, " Q"]:
        """Queries with an empty place."""
        short: Bool[np.ndarray, " Q"] = np.count_nonzero(self.columns < 0, axis=1) > 0
        return short

    def take(self, lines: Int64[np.ndarray, " R"], *, positives: Ragged) -> Drawn:
        """The given queries; `positives` are those of all queries here."""
        scores = self.positive_scores
        if scores is not None:
            places = Ragged(positives.offsets, np.arange(len(scores), dtype=np.int64))
            scores = scores[places.take(lines).values]
        removed = {name: numbers[lines] for name, numbers in self.removed.items()}
        return Drawn(self.left.take(lines), removed, self.columns[lines], scores)


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same over the chunks of one call of the miner.

    Attributes:
        queries: query row of each query number.
        positives: passage rows known to match each query number.
        groups: group of each passage, from 0 to M - 1.
        config: rules and sampling.
        seed: of the run.
        round: of mining.
        scorer: the inner product of the vectors.
        teacher: the reranker; None where there is none.
        near: the rules on near duplicates of positives, by name.
        barred: further rules on pairs, by name.
    """

    queries: Int64[np.ndarray, " N"]
    positives: Ragged
    groups: Int64[np.ndarray, " M"]
    config: MiningConfig
    seed: int
    round: int
    scorer: Scorer
    teacher: Scorer | None
    near: Mapping[str, Near]
    barred: Mapping[str, Barred]

    @property
    def judge(self) -> Scorer:
        """What thresholds and sampling go by."""
        return self.scorer if self.teacher is None else self.teacher

    def draw(self, found: Candidates, numbers: Int64[np.ndarray, " Q"], *, rank_max: int) -> Drawn:
        """Applies the rules on items, scores what they leave, applies the rules on scores, and draws."""
        positives = self.positives.take(numbers)
        found = found if self.teacher is None else found.unscored()
        left, removed = apply_rules(found, self._item_rules(positives, numbers, rank_max=rank_max))
        left = score_kept(left, self.judge, numbers=numbers)
        scores = self._positive_scores(positives, numbers)
        left, removed_by_score = apply_rules(left, self._score_rules(positives, scores))
        columns = self._columns(left, self.queries[numbers])
        return Drawn(left, removed | removed_by_score, columns, scores)

    def fill(self, drawn: Drawn, numbers: Int64[np.ndarray, " Q"]) -> NegativeTable:
        """The table of these queries, with random passages where the settings ask for them."""
        table = self._pick(drawn, numbers)
        empty = np.count_nonzero(table.rows < 0, axis=1)
        missing = empty if self.config.shortage == "random" else np.minimum(empty, self.config.num_random)
        if missing.any():
            self._fill(table, drawn.left, numbers, missing=missing)
        return table

    def _item_rules(
        self, positives: Ragged, numbers: Int64[np.ndarray, " Q"], *, rank_max: int
    ) -> Mapping[str, Rule]:
        first = self.config.rank_min
        chosen: dict[str, Rule] = {
            "known": partial(rules.drop_known, positives=positives, groups=self.groups),
            "duplicate": partial(rules.drop_duplicates, groups=self.groups),
            "rank_window": partial(rules.keep_ranks, rank_min=first, rank_max=rank_max),
        }
        for name, near in self.near.items():
            chosen[name] = partial(drop_near, positives=positives, near=near)
        for name, barred in self.barred.items():
            chosen[name] = partial(drop_barred, numbers=numbers, barred=barred)
        return chosen

    def _positive_scores(
        self, positives: Ragged, numbers: Int64[np.ndarray, " Q"]
    ) -> Float32[np.ndarray, " V"] | None:
        config = self.config
        if self.teacher is None and config.margin is None and config.relative_margin is None:
            return None
        return self.judge(numbers[positives.rows], positives.values)

    def _score_rules(self, positives: Ragged, scores: Float32[np.ndarray, " V"] | None) -> Mapping[str, Rule]:
        config = self.config
        chosen: dict[str, Rule] = {}
        if config.max_score is not None:
            chosen["max_score"] = partial(rules.keep_at_most, score=config.max_score)
        if config.min_score is not None:
            chosen["min_score"] = partial(rules.keep_at_least, score=config.min_score)
        if scores is None:
            return chosen
        pick = rules.weakest_positive if config.positive == "weakest" else rules.strongest_positive
        positive = pick(scores, positives)
        if config.margin is not None:
            chosen["margin"] = partial(rules.keep_below_positive, positive=positive, margin=config.margin)
        if config.relative_margin is not None:
            chosen["relative_margin"] = partial(
                rules.keep_below_fraction, positive=positive, relative_margin=config.relative_margin
            )
        return chosen

    def _columns(self, left: Candidates, queries: Int64[np.ndarray, " Q"]) -> Int64[np.ndarray, "Q n"]:
        keys, num = self._keys(left, queries), self.config.num_negatives - self.config.num_random
        if not self.config.quotas:
            return sampling.draw(left, keys, num=num)
        limits = Limits.from_quotas(self.config.source_quotas, num_negatives=self.config.num_negatives)
        left, first = limits.apply(left, keys)
        return sampling.draw(left, keys, num=num, first=first)

    def _keys(self, left: Candidates, queries: Int64[np.ndarray, " Q"]) -> Float64[np.ndarray, "Q K"]:
        if self.config.sampling == "top":
            return sampling.top_keys(left)
        if self.config.sampling == "uniform":
            return sampling.uniform_keys(left, queries, seed=self.seed, round=self.round)
        assert self.config.temperature is not None
        return sampling.weighted_keys(
            left, queries, seed=self.seed, round=self.round, temperature=self.config.temperature
        )

    def _pick(self, drawn: Drawn, numbers: Int64[np.ndarray, " Q"]) -> NegativeTable:
        """Only what was drawn; places for random passages are empty."""
        columns = np.full((len(numbers), self.config.num_negatives), -1, dtype=np.int64)
        columns[:, : drawn.columns.shape[1]] = drawn.columns
        there, left = columns >= 0, drawn.left
        rows, judged, ranks, sources = (
            np.take_along_axis(values, np.where(there, columns, 0), axis=1)
            for values in (left.rows, left.scores, left.ranks, left.sources)
        )
        judged = np.where(there, judged, np.float32(-np.inf))
        scores, taught = judged, {}
        if self.teacher is not None:
            line, place = np.nonzero(there)
            scores = np.full_like(judged, -np.inf)
            scores[line, place] = self.scorer(numbers[line], rows[line, place])
            assert drawn.positive_scores is not None
            taught = {"teacher": judged} | self._taught(drawn.positive_scores, numbers)
        return NegativeTable(
            round=self.round,
            queries=self.queries[numbers],
            rows=np.where(there, rows, -1),
            scores=scores,
            ranks=np.where(there, ranks, np.int32(-1)),
            sources=np.where(there, sources, np.int8(-1)),
            **taught,
        )

    def _taught(
        self, scores: Float32[np.ndarray, " V"], numbers: Int64[np.ndarray, " Q"]
    ) -> dict[str, np.ndarray]:
        width = int(self.positives.counts.max(initial=1))
        rows = self.positives.take(numbers).padded(width=width)
        padded = np.full(rows.shape, -np.inf, dtype=np.float32)
        padded[rows >= 0] = scores
        return {"positives": rows, "positive_teacher": padded}

    def _fill(
        self,
        table: NegativeTable,
        left: Candidates,
        numbers: Int64[np.ndarray, " Q"],
        *,
        missing: Int64[np.ndarray, " Q"],
    ) -> None:
        filled = np.count_nonzero(table.rows >= 0, axis=1)
        drawn = filler.draw_random(
            missing,
            table.queries,
            candidates=left,
            positives=self.positives.take(numbers),
            groups=self.groups,
            seed=self.seed,
            round=self.round,
            near=any_near(list(self.near.values())) if self.near else None,
            barred=[partial(_of_numbers, rule, numbers) for rule in self.barred.values()],
        )
        line, place = np.nonzero(drawn >= 0)
        passages = drawn[line, place]
        # The empty places of a row are its last.
        place = filled[line] + place
        table.rows[line, place] = passages
        table.scores[line, place] = self.scorer(numbers[line], passages)
        table.sources[line, place] = SOURCES.index("random")
        if self.teacher is not None and table.teacher is not None:
            table.teacher[line, place] = self.teacher(numbers[line], passages)


def _of_numbers(
    rule: Barred,
    numbers: Int64[np.ndarray, " Q"],
    lines: Int64[np.ndarray, " P"],
    rows: Int64[np.ndarray, " P"],
) -> Bool[np.ndarray, " P"]:
    """The rule for pairs of a line of this chunk and a passage row."""
    return rule(numbers[lines], rows)

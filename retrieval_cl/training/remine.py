"""Mining inside training: at the start of a round, when drift asks for it, or beside training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.ranks import any_rank
from retrieval_cl.methods.method import Embeddings
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, Run
from retrieval_cl.training.staleness import overlap, pack_rows, unpack_rows

Probe = Callable[[Run], Int64[np.ndarray, "P k"]]
"""Rows of the probe queries' hits under the current weights; -1 where one does not count."""


@final
@dataclass(frozen=True)
class Pending:
    """A table that is mined while training goes on.

    Attributes:
        round: that it is for.
        taken_at: the step whose weights it is mined with.
        due: the step from which it is used.
    """

    round: int
    taken_at: int
    due: int


@runtime_checkable
class Aside(Protocol):
    """Mines beside training; `runs.background.BackgroundMiner` does. Every rank calls each function."""

    def begin(self, run: Run, pending: Pending) -> None:
        """Keeps a snapshot of the weights and starts to mine with it."""

    def resume(self, run: Run, pending: Pending) -> None:
        """Starts again, from the snapshot that was kept. Raises InputError where it is gone."""

    def check(self, run: Run) -> None:
        """Raises where mining has failed by now, on all ranks."""

    def finish(self, run: Run, pending: Pending) -> tuple[NegativeTable, Int64[np.ndarray, "P k"]]:
        """Waits for the table, and the probe's hits under its weights. Raises as `check`."""

    def forget(self, oldest: int) -> None:
        """No checkpoint of a step before `oldest` is left: snapshots for those alone can go."""

    def stop(self) -> None:
        """Ends what still runs."""


@final
class Remine(Callback):
    """Gives each round from `first_mined_round` on a table of its own: a resume mines nothing twice.

    Without `aside` the current weights mine at the round's start. With it a snapshot is taken `swap_after`
    steps before, mined with beside training, and its table is swapped in at the round's start; training waits
    where it is late, so that what is learned does not depend on how fast the miner is.

    With a probe, staleness goes into the log: the age of the table (steps since the weights that mined it)
    and the overlap of the probe's hits with those under these weights, at each mining and every
    `probe_every` steps. Under `min_overlap` the current round is cut short.
    """

    def __init__(
        self,
        mine: Callable[[Run], NegativeTable],
        log: MetricsLog,
        *,
        probe: Probe | None = None,
        aside: Aside | None = None,
    ) -> None:
        """`mine`: the table of the run's round, by the current weights."""
        self._mine = mine
        self._log = log
        self._probe = probe
        self._aside = aside
        self._pending: Pending | None = None
        self._former: Int64[np.ndarray, "P k"] | None = None
        self._made_at = 0

    def on_round(self, run: Run) -> None:
        """Gives the run a table of its round."""
        self._refuse_idle(run)
        has_table = run.negatives is not None and run.negatives.round == run.round
        if has_table or run.round < run.config.first_mined_round:
            return
        started = perf_counter()
        if self._pending is None:
            table = self._mine(run)
            hits, made_at = None if self._probe is None else self._probe(run), run.step
            clock = {"mining_seconds": perf_counter() - started}
        else:
            assert self._aside is not None and self._pending.due == run.step, (self._pending, run.step)
            table, hits = self._aside.finish(run, self._pending)
            made_at = self._pending.taken_at
            clock = {"waited_seconds": perf_counter() - started}
        assert table.round == run.round, (table.round, run.round)
        facts = {} if hits is None else self._compare(hits, made_at=made_at)
        self._log.append(run.step, round=run.round, **clock, **facts)
        run.negatives, self._former, self._made_at, self._pending = table, hits, made_at, None

    def on_step(self, run: Run, loss: Tensor, embeddings: Embeddings) -> None:
        """Looks for drift, and takes a snapshot, where they are due."""
        every, ends = run.config.probe_every, run.cursor == 0 or run.step == run.steps
        if every is not None and run.step % every == 0 and self._former is not None and not ends:
            self._look(run)
        if self._aside is None:
            return
        if self._pending is not None:
            self._aside.check(run)
        elif _is_snapshot_due(run):
            self._pending = Pending(run.round + 1, run.step, run.round_end)
            self._aside.begin(run, self._pending)

    def on_saved(self, oldest: int) -> None:
        """Lets go of snapshots that no checkpoint needs."""
        if self._aside is not None:
            self._aside.forget(oldest)

    def on_stop(self, run: Run) -> None:
        """Ends the miner beside training, if it runs."""
        if self._aside is not None:
            self._aside.stop()

    def state(self) -> dict[str, Any]:
        """Which weights made the table, what the probe found by them, and what is being mined."""
        return {
            "made_at": self._made_at,
            "former": None if self._former is None else pack_rows(self._former),
            "pending": None if self._pending is None else asdict(self._pending),
        }

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Goes on with the table that was being mined, from its snapshot."""
        self._made_at = state["made_at"]
        self._former = None if state["former"] is None else unpack_rows(state["former"])
        self._pending = None if state["pending"] is None else Pending(**state["pending"])
        if self._pending is not None:
            assert self._aside is not None, "the settings of a resumed run are the same"
            self._aside.resume(run, self._pending)

    def _look(self, run: Run) -> None:
        """Writes how stale the table is; where it is too stale, the round ends as soon as it can."""
        assert self._probe is not None
        started, config = perf_counter(), run.config
        facts = self._compare(self._probe(run), made_at=run.step)
        seconds = perf_counter() - started
        stale = config.min_overlap is not None and facts["staleness"]["overlap"] < config.min_overlap
        # Ranks search alike, but a last bit may differ between machines: they end a round together or not.
        stale = any_rank(stale, device=run.device) and self._pending is None
        end = run.step + (config.swap_after or 0)
        if cuts := stale and end < run.round_end:
            run.cut_round(end)
        self._log.append(run.step, round=run.last_round, **facts, remines=cuts, probe_seconds=seconds)

    def _compare(self, hits: Int64[np.ndarray, "P k"], *, made_at: int) -> dict[str, Any]:
        """Age of the table and its overlap when `hits` were searched, by the weights of step `made_at`."""
        if self._former is None:
            return {}
        return {"staleness": {"age": made_at - self._made_at, "overlap": overlap(self._former, hits)}}

    def _refuse_idle(self, run: Run) -> None:
        config = run.config
        for name in ("probe_every", "probe_passages"):
            if self._probe is None and getattr(config, name) is not None:
                raise InputError(f"training.{name} has no effect here: this run has no probe; remove it")
        if self._aside is None and config.background:
            raise InputError(
                "training.background has no effect here: this run mines in the foreground; remove it"
            )


def _is_snapshot_due(run: Run) -> bool:
    """Whether the next round is one that is mined for, and its weights are those of this step."""
    swap_after = run.config.swap_after
    if swap_after is None or run.step == run.steps or run.round_end == run.steps:
        return False
    is_mined = run.round + 1 >= run.config.first_mined_round
    return is_mined and run.step == run.round_end - swap_after

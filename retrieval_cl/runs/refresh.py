"""Partial refresh: mining embeds anew what may be a candidate; other passages keep their stale vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_file
from retrieval_cl.core.ranks import rank
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Callback, Run
from retrieval_cl.training.staleness import overlap

# Beside the checkpoints, in their folder: they are part of those taken until the next mining.
STALE = "passage_vectors"


@final
@dataclass(frozen=True)
class RefreshFacts:
    """What a refresh did, and what it lost.

    Attributes:
        encoded: passages embedded anew.
        passages: passages in all.
        lost_overlap: share of the probe's hits under a full refresh that are not found under this one.
        cosine_mean: of the vectors before with the new ones, over the probe's passages.
        cosine_low: its 5 % quantile.
    """

    encoded: int
    passages: int
    lost_overlap: float = 0.0
    cosine_mean: float = 1.0
    cosine_low: float = 1.0


@final
class Refresh(Callback):
    """The passages' vectors, partly stale. Equal to those of a full refresh up to a tolerance only.

    A passage is embedded anew where the vectors from before put it among the first `depth` of a query, whose
    vectors are always new. What that loses is measured at each mining: the probe set is searched among its
    own passages, all embedded anew, and among the same as they are used here.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        mined: Int64[np.ndarray, " S"],
        depth: int,
        make_vectors: Callable[[], Vectors],
        folder: Path,
        log: MetricsLog,
    ) -> None:
        """`mined`: passage rows that mining searches. `folder`: of the checkpoints.

        `make_vectors` gives those of the weights of the moment, without any that were made before: what a
        passage's last bits are may depend on what it is embedded with, and a resumed run has nothing before.
        """
        self._probe = probe
        self._mined = mined
        self._depth = depth
        self._make_vectors = make_vectors
        self._folder = folder / STALE
        self._log = log
        self._vectors: Float32[np.ndarray, "M D"] | None = None
        self._made_at: int | None = None
        self._facts = RefreshFacts(0, 0)
        self._seconds = 0.0

    def passages(self, queries: Float32[np.ndarray, "N D"], *, device: str) -> Float32[np.ndarray, "M D"]:
        """A vector of each passage, as new as it needs to be. `queries`: of all that are mined for, new."""
        started = perf_counter()
        if self._vectors is None:
            # Of its own, and writable: rows of it will be replaced.
            self._vectors = self._make_vectors().passages().copy()
            self._facts = RefreshFacts(len(self._vectors), len(self._vectors))
        else:
            self._facts = self._renew(self._vectors, queries, device=device)
        self._seconds = perf_counter() - started
        return self._vectors

    def keep(self, run: Run) -> None:
        """Writes the vectors for checkpoints to come, and the facts to the log."""
        assert self._vectors is not None
        self._made_at = run.step
        if rank() == 0:
            with new_file(self._path(run.step)) as part, part.open("wb") as stream:
                np.save(stream, self._vectors, allow_pickle=False)
        self._log.append(
            run.step, round=run.round, refresh=asdict(self._facts), refresh_seconds=self._seconds
        )

    def further(self) -> Mapping[str, str]:
        """The facts in words, for a report."""
        facts = self._facts
        return {
            "passages embedded anew": f"{facts.encoded:,} of {facts.passages:,}",
            "lost against embedding all": f"{100 * facts.lost_overlap:.1f} % of the probe's hits",
        }

    def on_saved(self, oldest: int) -> None:
        """Removes vectors that a later mining replaced before the oldest checkpoint."""
        made = sorted(int(path.stem.removeprefix("step-")) for path in self._folder.glob("step-*.npy"))
        # A checkpoint comes before the mining of its step.
        needed = [step for step in made if step < oldest][-1:]
        for step in made:
            if rank() == 0 and step < oldest and step not in needed:
                self._path(step).unlink()

    def state(self) -> dict[str, Any]:
        """Where the vectors lie."""
        return {"made_at": self._made_at}

    def load_state(self, state: dict[str, Any], run: Run) -> None:
        """Reads the vectors that the next mining starts from."""
        self._made_at = state["made_at"]
        if self._made_at is None:
            return
        path = self._path(self._made_at)
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; the checkpoint of step {run.step} needs it: remove that checkpoint, "
                "so that --resume takes an earlier one"
            )
        self._vectors = np.load(path, allow_pickle=False)

    def _renew(
        self,
        vectors: Float32[np.ndarray, "M D"],
        queries: Float32[np.ndarray, "N D"],
        *,
        device: str,
    ) -> RefreshFacts:
        sharing = self._make_vectors().sharing
        found = sharing.exact(vectors[self._mined], device=device)(queries, self._depth)
        rows = self._mined[np.unique(found.rows[found.rows >= 0])]
        sample = self._probe.passages
        new = self._make_vectors().some_passages(sample)
        cosines = np.einsum("sd,sd->s", new, vectors[sample])
        vectors[rows] = self._make_vectors().some_passages(rows)
        # `new` itself is not kept: the sample would no longer be as stale as the rest, and measure nothing.
        probes = self._make_vectors().queries(self._probe.queries)
        whole, partial = (
            self._probe.search_among(probes, among, device=device, sharing=sharing)
            for among in (new, vectors[sample])
        )
        return RefreshFacts(
            encoded=len(rows),
            passages=len(vectors),
            lost_overlap=1 - overlap(whole, partial),
            cosine_mean=float(cosines.mean()),
            cosine_low=float(np.quantile(cosines, 0.05)),
        )

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.npy"


def refresh_lines(rounds: Sequence[MiningRound]) -> list[str]:
    """What each mining of a run embedded anew, and what that lost; nothing where all is always embedded."""
    return [
        f"mining for round {one.round}: {', '.join(f'{name}: {said}' for name, said in one.further.items())}"
        for one in rounds
        if one.further
    ]

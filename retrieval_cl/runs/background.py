"""Mining beside training: a snapshot of the weights, a process that mines with it, and its table on time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Literal, final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder, read_manifest, write_manifest
from retrieval_cl.core.ranks import any_rank, num_ranks, rank
from retrieval_cl.core.together import together
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.rounds import MinedFacts, RoundMiner, RoundTask
from retrieval_cl.runs.sharing import Alone
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.background import BackgroundFailed, SpawnedWorker, Worker, spare_device
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.monitor import TrainingFailed
from retrieval_cl.training.remine import Pending
from retrieval_cl.training.run import Run

# Beside the checkpoints, in their folder: they are part of those taken between snapshot and swap.
SNAPSHOTS = "snapshots"
KIND = "mined_in_background"
_ENCODER, _MINED, _TABLE, _HITS = "encoder", "mined", "table", "probe_hits.npy"
_POLL_SECONDS = 0.02


@final
@dataclass(frozen=True, eq=False)
class Given:
    """What the process gets once."""

    task: RoundTask
    probe: Probe
    precision: Literal["auto", "fp32", "bf16"]


@final
@dataclass(frozen=True)
class MiningJob:
    """One table: `folder` holds the snapshot, and takes what is mined."""

    folder: Path
    round: int
    device: str


def mine_snapshot(given: Given, job: MiningJob) -> MinedFacts:
    """Mines with a snapshot, and searches the probe set; writes both beside it, whole or not at all."""
    encoder = load_encoder(job.folder / _ENCODER).to(job.device)
    # The other ranks train: whoever mines here is alone.
    vectors = Vectors(given.task.text, encoder, precision=given.precision, sharing=Alone())
    table, facts = given.task.mine(vectors, round=job.round, device=job.device)
    hits = given.probe.search(vectors, device=job.device)
    with new_folder(job.folder / _MINED) as part:
        table.save(part / _TABLE)
        np.save(part / _HITS, hits, allow_pickle=False)
        write_manifest(part, KIND, round=job.round)
    return facts


@final
class BackgroundMiner:
    """Takes snapshots and mines with them; `Remine` tells when. Rank 0 alone mines, all read its table."""

    def __init__(
        self,
        miner: RoundMiner,
        encoder: TextEncoder,
        *,
        probe: Probe,
        folder: Path,
        log: MetricsLog,
        make_worker: Callable[[Given, Run], Worker] | None = None,
    ) -> None:
        """`folder`: of the checkpoints. `make_worker`: None spawns a process."""
        self._miner = miner
        self._encoder = encoder
        self._probe = probe
        self._folder = folder / SNAPSHOTS
        self._log = log
        self._make_worker = make_worker or _spawn
        self._worker: Worker | None = None
        self._is_mining = False
        self._facts: MinedFacts | None = None
        self._error: Exception | None = None

    def begin(self, run: Run, pending: Pending) -> None:
        """Keeps a snapshot of the weights and starts to mine with it."""
        started = perf_counter()
        with together(run.device):
            if rank() == 0:
                with new_folder(self._place(pending)) as part:
                    self._encoder.save(part / _ENCODER)
                self._start(run, pending)
        self._log.append(run.step, round=run.last_round, snapshot_seconds=perf_counter() - started)

    def resume(self, run: Run, pending: Pending) -> None:
        """Starts again, from the snapshot that was kept."""
        place = self._place(pending)
        if not place.is_dir():
            raise InputError(
                f"{place}: no such folder; the checkpoint of step {run.step} needs this snapshot of step "
                f"{pending.taken_at}: remove that checkpoint, so that --resume takes an earlier one"
            )
        with together(run.device):
            if rank() == 0:
                self._start(run, pending)

    def check(self, run: Run) -> None:
        """Raises where mining has failed by now, on all ranks."""
        self._is_settled()
        if any_rank(self._error is not None, device=run.device):
            raise self._error or BackgroundFailed("mining in the background failed on rank 0; see its line")

    def finish(self, run: Run, pending: Pending) -> tuple[NegativeTable, Int64[np.ndarray, "P k"]]:
        """Waits for the table, and the probe's hits under its weights."""
        # Asked again and again: ranks that waited in one call for long would give up.
        while any_rank(not self._is_settled(), device=run.device):
            sleep(_POLL_SECONDS)
        self.check(run)
        if self._facts is not None:
            self._miner.note(run, self._facts)
        place = self._place(pending) / _MINED
        read_manifest(place, KIND)
        hits: Int64[np.ndarray, "P k"] = np.load(place / _HITS, allow_pickle=False)
        return NegativeTable.load(place / _TABLE), hits

    def forget(self, oldest: int) -> None:
        """Removes the snapshots of tables that were swapped in before step `oldest`."""
        if rank() == 0:
            for path in self._folder.glob("step-*-to-*"):
                if int(path.name.rpartition("-")[2]) < oldest:
                    shutil.rmtree(path)

    def stop(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.stop()

    def _start(self, run: Run, pending: Pending) -> None:
        if self._worker is None:
            given = Given(self._miner.task(run, None), self._probe, run.config.precision)
            self._worker = self._make_worker(given, run)
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", num_ranks()))
        device = spare_device(run.device, ranks_here=ranks_here)
        self._worker.begin(MiningJob(self._place(pending), pending.round, str(device)))
        self._is_mining, self._facts = True, None

    def _is_settled(self) -> bool:
        """Whether nothing is being mined by this rank any longer; takes the result of what has just ended."""
        if self._is_mining and self._worker is not None and self._worker.is_done():
            self._is_mining = False
            try:
                self._facts = self._worker.finish()
            except (InputError, TrainingFailed) as error:
                self._error = error
        return not self._is_mining

    def _place(self, pending: Pending) -> Path:
        return self._folder / f"step-{pending.taken_at:08d}-to-{pending.due:08d}"


def _spawn(given: Given, run: Run) -> Worker:
    return SpawnedWorker(mine_snapshot, given, threads=run.config.background_threads)

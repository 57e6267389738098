"""Re-mining put together for a run: miner, probe, what mines beside training, what is embedded anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.runs.background import BackgroundMiner
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.probe import Probe
from retrieval_cl.runs.refresh import Refresh
from retrieval_cl.runs.rounds import RoundMiner
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.text_miner import searched_rows
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.remine import Remine
from retrieval_cl.training.run import Callback


def build_remining(
    text: PreparedText,
    encoder: TextEncoder,
    *,
    vectors: Vectors,
    mining: MiningConfig,
    training: TrainingConfig,
    extra: Mapping[str, Hits] | None,
    folder: Path,
    watch: Stopwatch,
    log: MetricsLog,
) -> tuple[RoundMiner, list[Callback]]:
    """The miner, which tells what it did, and the callbacks that use it, in their order.

    Args:
        text: what is trained on.
        encoder: what is trained.
        vectors: those that the run shares; a callback before these.
        mining: how negatives are found.
        training: when, with which weights, and what is embedded anew.
        extra: further candidates by source name, row i for the i-th train query.
        folder: of the checkpoints; snapshots and stale vectors lie beside them.
        watch: counts the time of mining in the foreground.
        log: of the run.

    Raises:
        InputError: settings of mining and training that do not go together.
    """
    if training.background and "previous" in mining.quotas:
        raise InputError(
            "mining.quotas.previous does not go with training.background: a snapshot is mined for before the "
            "table it would take from is known"
        )
    probe = Probe.of(text, mining=mining, training=training)
    fresh = partial(Vectors, text, encoder, precision=training.precision, sharing=vectors.sharing)
    refresh = None
    if training.refresh == "candidates":
        mined = searched_rows(text, mining)
        refresh = Refresh(probe, mined=mined, depth=mining.depth, make_vectors=fresh, folder=folder, log=log)
    miner = RoundMiner(text, vectors, mining=mining, extra=extra, watch=watch, log=log, refresh=refresh)
    aside = BackgroundMiner(miner, encoder, probe=probe, folder=folder, log=log)
    remine = Remine(
        miner,
        log,
        # Where mining embeds all passages, the probe takes its vectors from there.
        probe=partial(probe.find, fresh if refresh is not None else lambda: vectors),
        aside=aside if training.background else None,
    )
    return miner, [remine] if refresh is None else [refresh, remine]

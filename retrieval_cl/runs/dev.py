"""Looking at dev in training: exact search with the current weights, metrics as in the final evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.evaluation.metrics import RECALL_CUTS, metric_names
from retrieval_cl.runs.config import EvaluationConfig
from retrieval_cl.runs.judged import judged_queries, sample_passages
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.run import Run


@final
class DevSet:
    """Measures a run on dev; `Evaluate` calls it. Its sample of queries and passages depends on the seed."""

    def __init__(
        self, text: PreparedText, vectors: Vectors, *, config: EvaluationConfig, seed: int, watch: Stopwatch
    ) -> None:
        """Raises InputError where no dev query has a relevant passage, or there is no such metric."""
        names = metric_names()
        if config.metric not in names:
            raise InputError(
                f"evaluation.metric '{config.metric}': no such metric{nearest_name(config.metric, names)}; "
                f"valid: {', '.join(names)}"
            )
        judged = judged_queries(text.data, "dev", max_queries=config.dev_queries, seed=seed)
        self._rows, self._judged = sample_passages(
            judged, len(text.data.passages), max_passages=config.dev_passages, seed=seed
        )
        self._vectors = vectors
        self._watch = watch

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Metric -> mean over the dev queries."""
        sharing = self._vectors.sharing
        with self._watch("evaluate on dev"), sharing.together():
            passages = self._vectors.some_passages(self._rows)
            queries = self._vectors.queries(self._judged.queries)
            hits = sharing.exact(passages, device=str(run.device))(queries, max(RECALL_CUTS))
            return {name: float(values.mean()) for name, values in self._judged.measure(hits).items()}

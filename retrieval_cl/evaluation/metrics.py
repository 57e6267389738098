"""All metrics of a search, per query: recall, success, MRR and nDCG by trec_eval's definitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from retrieval_cl.core import ranking
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged

RECALL_CUTS = (1, 5, 10, 50, 100)
MRR_CUT = NDCG_CUT = 10


def metric_names(recall_cuts: Sequence[int] = RECALL_CUTS) -> list[str]:
    """The names `evaluate_hits` gives, in its order."""
    names = [f"{metric}@{cut}" for metric in ("recall", "success") for cut in recall_cuts]
    return [*names, f"mrr@{MRR_CUT}", f"ndcg@{NDCG_CUT}"]


def evaluate_hits(
    hits: Hits, relevant: Ragged, *, grades: Ragged | None = None, recall_cuts: Sequence[int] = RECALL_CUTS
) -> dict[str, Float64[np.ndarray, " Q"]]:
    """Scores every query; a query without a relevant passage scores 0.

    Args:
        hits: row i holds the hits of query i, as many as the largest cut or more; -1 is no hit.
        relevant: query i -> judged passage rows.
        grades: the grade of each, with the offsets of `relevant`, relevant from 1 on; None: all are 1.
        recall_cuts: the k of recall@k and success@k.

    Returns:
        Metric name -> one value a query: `recall@k` (found of all relevant), `success@k` (any found),
        `mrr@10`, `ndcg@10` (gain = grade).

    Raises:
        InputError: fewer hits a query than a cut needs.
    """
    needed = max(*recall_cuts, MRR_CUT, NDCG_CUT)
    if hits.rows.shape[1] < needed:
        raise InputError(
            f"{hits.rows.shape[1]} hits a query; recall@{needed} needs a search with k = {needed}"
        )
    if grades is None:
        grades = Ragged(relevant.offsets, np.ones_like(relevant.values))
    gains = ranking.gains(hits.rows, relevant, grades)
    num_relevant = ranking.count_relevant(grades)
    metrics = {f"recall@{cut}": ranking.recall_at_k(gains, num_relevant, k=cut) for cut in recall_cuts}
    metrics |= {f"success@{cut}": ranking.success_at_k(gains, k=cut) for cut in recall_cuts}
    metrics[f"mrr@{MRR_CUT}"] = ranking.mrr_at_k(gains, k=MRR_CUT)
    metrics[f"ndcg@{NDCG_CUT}"] = ranking.ndcg_at_k(gains, grades, k=NDCG_CUT)
    return metrics

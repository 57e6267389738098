"""Settings of the audit: what is held back for the estimate, and what rate a margin must keep to."""

from __future__ import annotations

from pydantic import Field

from retrieval_cl.settings import Settings


class AuditConfig(Settings):
    """How the false-negative rate is estimated and what is called near."""

    bound: float = Field(
        0.05, gt=0, lt=1, description="false-negative rate that the recommended margin keeps to (share)"
    )
    hidden_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of a query's known passages that the miner is not told for the estimate; "
        "one at least, never all",
    )
    hidden_queries: int = Field(
        1000, ge=0, description="queries that hide something, drawn with the seed; 0: no estimate"
    )
    near_text: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word 3-shingles from which texts are nearly equal"
    )
    near_query: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of their words from which queries are nearly equal"
    )
    near_vector: float = Field(
        0.98, gt=-1, le=1, description="cosine from which vectors are nearly equal, where there are no texts"
    )

"""Settings of evaluation and of the index folder. Light: imported by the command line before any library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrieval_cl.settings import Settings


class EvaluationConfig(Settings):
    """What is measured, on which queries, and which weights are kept by it."""

    split: str = Field("test", description="split that is reported on; nothing is tuned on it")
    depth: int = Field(100, ge=100, le=10_000, description="hits a query that the hybrid fuses")
    rank_constant: int = Field(
        60, ge=1, description="of the hybrid: a hit counts 1 / (constant + rank) in each of its two lists"
    )
    metric: str = Field("recall@10", description="metric on dev that is watched in training")
    keep: Literal["best", "last"] = Field(
        "best", description="weights kept at the end: those best on dev by metric, or those of the last step"
    )
    dev_queries: int | None = Field(
        2000, ge=1, description="dev queries measured in training, a seeded sample; null: all"
    )
    dev_passages: int | None = Field(
        None, ge=1, description="passages searched in training, with all right ones; null: the whole corpus"
    )


class IndexConfig(Settings):
    """How passages or images are indexed."""

    what: Literal["images", "captions"] = Field(
        "images", description="what a model of images with texts indexes; other models refuse this"
    )
    factory: str | None = Field(
        None,
        description="FAISS factory string such as 'HNSW32', or 'auto'; null: exact search over the vectors",
    )
    target_recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="least recall of the FAISS index against exact search: it searches as widely as that "
        "takes, and is not written where it cannot reach it; null: recall is measured alone",
    )
    recall_k: int | None = Field(
        None, ge=1, le=1000, description="hits a query by which recall is measured; null: 10"
    )
    memory: str | int | None = Field(
        None,
        description="bound on what building the FAISS index takes beside the vectors, as '2GiB'; null: none",
    )
    gpus: int | None = Field(
        None,
        ge=0,
        description="GPUs on which FAISS trains, sorts rows into lists and searches; several hold a share of "
        "the rows each; null: all that FAISS sees; 0: none",
    )
    gpu_fp16: bool | None = Field(
        None, description="on GPUs, FAISS keeps Flat vectors and the tables of PQ in float16; null: true"
    )
    lexical: bool = Field(True, description="also index words, for search --mode bm25 and hybrid")
    k1: float | None = Field(
        None, gt=0, le=20, description="of BM25; null: best on dev, 0.9 where there is no dev split"
    )
    b: float | None = Field(
        None, ge=0, le=1, description="of BM25; null: best on dev, 0.4 where there is no dev split"
    )

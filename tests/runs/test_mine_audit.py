"""What a run asks of audit and estimates: a teacher whose scores are free of a margin, and judgements."""

import numpy as np
import pytest

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.audit_config import AuditConfig
from retrieval_cl.mining.audit_pairs import vector_similarity
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.near_queries import near_vectors_of
from retrieval_cl.runs.mine_audit import Subject, audit_table, estimate_held_back, estimate_teacher

FREE = {"relative_margin": None, "reranker": "x", "num_negatives": 3, "depth": 10}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def subject():
    """Twenty queries with one positive each and a teacher that disagrees with the vectors."""
    generator = np.random.default_rng(0)
    queries, passages = (unit(generator.standard_normal((size, 8))) for size in (20, 60))
    opinions = generator.standard_normal((20, 60))
    positives = Ragged(np.arange(21), np.arange(20, dtype=np.int64))
    table, _ = mine(
        queries,
        passages,
        queries=np.arange(20),
        positives=positives,
        groups=np.arange(60),
        config=MiningConfig(**FREE),
        seed=0,
        round=0,
        reranker=lambda asked, rows: opinions[asked, rows],
    )
    scores = (queries * passages[:20]).sum(axis=1)
    pairs = near_vectors_of(queries, least=0.9, seed=0)
    subject = Subject(
        table, positives, scores, np.arange(60), vector_similarity(passages), 0.5, "cosine", pairs
    )
    return subject, opinions


def test_the_teachers_rate_is_its_share_at_or_above_the_positive(subject):
    subject, opinions = subject
    found = estimate_teacher(subject, config=MiningConfig(**FREE), audit=AuditConfig(bound=0.9))
    table = subject.table
    hits = sum(
        np.float32(opinions[line, row]) >= np.float32(opinions[line, line])
        for line in range(20)
        for row in table.rows[line]
    )
    assert (found.rate.hits, found.rate.trials, found.kind) == (hits, 60, "teacher")
    assert found.sweep[0].rate == found.rate and found.held_back is None


@pytest.mark.parametrize("rule", [{"relative_margin": 0.05}, {"margin": 0.1}])
def test_a_teacher_whose_margin_chose_the_negatives_is_not_asked_again(subject, rule):
    config = MiningConfig(**(FREE | rule))
    assert estimate_teacher(subject[0], config=config, audit=AuditConfig()) is None


def test_suspects_go_by_the_teachers_scores_where_there_are_some(subject):
    subject, opinions = subject
    relevant = np.arange(30)
    same = Ragged.from_lists([[int(subject.table.rows[0, 0])], *[[] for _ in range(19)]])
    audit = audit_table(subject, judged={"test": (relevant, same)}, old=subject.table, seed=0)
    line, row = int(audit.by_score.lines[0]), int(audit.by_score.rows[0])
    own = opinions[line, line]
    assert audit.by_score.measure[0] == pytest.approx(1 + (opinions[line, row] - own) / abs(own), rel=1e-4)
    assert audit.judged["test"].same_query == 1
    assert audit.judged["test"].negatives == int((subject.table.rows < 30).sum())
    assert audit.difference.shared_share == 1.0
    assert audit.to_dict()["difference"]["shared"] == 60


def test_nothing_is_estimated_where_no_query_has_two_answers(subject):
    found = estimate_held_back(
        subject[0].positives,
        lambda held, margin: pytest.fail("nothing to mine for"),
        queries=np.arange(20),
        groups=np.arange(60),
        config=MiningConfig(),
        audit=AuditConfig(),
        seed=0,
    )
    assert found is None

"""A tiny run, in plain functions that a spawned rank can call too: 13 queries over 20 passages."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.sources.records import Qrels
from retrieval_cl.sources.text_pairs import TextPairs
from retrieval_cl.training.config import TrainingConfig
from retrieval_cl.training.run import Callback
from retrieval_cl.training.trainer import start_run

NUM_QUERIES, NUM_PASSAGES, WORDS = 13, 20, 30


class DropoutTower(nn.Module):
    """Mean of word vectors, a norm, dropout, a layer with a bias, unit rows."""

    def __init__(self, *, dropout, dim=6):
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(dim, dim)
        self.dim = dim

    def embed(self, tokens, *, kind):
        device = self.layer.weight.device
        values = torch.from_numpy(tokens.values.astype(np.int64)).to(device)
        bags = self.words(values, torch.from_numpy(tokens.offsets[:-1]).to(device))
        return normalize(self.layer(self.dropout(self.norm(bags))).float(), dim=1)


def build_method(*, dropout=0.2, seed=0, learned=True, **options):
    torch.manual_seed(seed)
    return DualEncoder(DropoutTower(dropout=dropout), Temperature(0.1, learned=learned), **options)


def random_texts(num_rows, *, seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 5, num_rows)
    return Ragged.from_lists([generator.integers(0, WORDS, n).tolist() for n in lengths], dtype=np.int32)


def build_source(*, batch_size=4, num_negatives=2):
    """Queries 0 and 1 share a positive; passages 2 and 3 are copies of one text."""
    queries = np.arange(NUM_QUERIES)
    positives = np.concatenate([[1], queries[1:]])
    groups = np.arange(NUM_PASSAGES)
    groups[3] = 2
    return TextPairs(
        random_texts(NUM_QUERIES, seed=1),
        random_texts(NUM_PASSAGES, seed=2),
        qrels=Qrels(queries, positives, np.ones(NUM_QUERIES, dtype=np.int64)),
        groups=groups,
        query_groups=queries,
        batch_size=batch_size,
        num_negatives=num_negatives,
    )


def mine_hardest(run):
    """Mines with the weights of the run, so that a table tells whether they were the right ones."""
    source = build_source()
    run.method.eval()
    with torch.no_grad():
        queries = run.method.encoder.embed(source.query_tokens, kind="query")
        passages = run.method.encoder.embed(source.passage_tokens, kind="passage")
    run.method.train()
    scores = queries @ passages.T
    scores[torch.from_numpy(source.positives.rows), torch.from_numpy(source.positives.values)] = -2.0
    best = scores.topk(3, dim=1)
    shape = best.indices.shape
    return NegativeTable(
        run.round,
        np.arange(NUM_QUERIES),
        best.indices.numpy(),
        best.values.numpy(),
        np.zeros(shape, dtype=np.int32),
        np.zeros(shape, dtype=np.int8),
    )


def build_run(*, method=None, **settings):
    """A run and its source: 3 rounds of 3 steps."""
    defaults = {"batch_size": 4, "num_negatives": 2, "rounds": 3, "epochs_per_round": 1.0, "lr": 0.01}
    if "steps" in settings:
        del defaults["epochs_per_round"]
    defaults |= {"log_every": 1, "health_every": 100, "precision": "fp32"}
    config = TrainingConfig(**defaults | settings)
    source = build_source(batch_size=config.batch_size, num_negatives=config.num_negatives)
    method = build_method() if method is None else method
    return start_run(method, config, steps_per_epoch=source.steps_per_epoch), source


class Killed(BaseException):
    """What no handler expects, like a kill."""


class Kill(Callback):
    """Ends a run after a step, as a kill would."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run, loss, embeddings):
        if run.step == self.step:
            raise Killed

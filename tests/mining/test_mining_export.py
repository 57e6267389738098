"""What is exported equals a loop over the table, and trains in sentence-transformers as it is."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import export_rows
from retrieval_cl.mining.export import write_texts
from retrieval_cl.mining.table import NegativeTable

QUERIES = [f"query {row}" for row in range(5)]
PASSAGES = [f'passage {row} "ü"\n' for row in range(9)]
POSITIVES = Ragged.from_lists([[0], [1, 2], [3]])
POSITIVE_SCORES = np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32)


@pytest.fixture
def table():
    rows = np.array([[4, 5], [6, -1], [-1, -1]])
    return NegativeTable(
        round=1,
        queries=np.array([2, 0, 4]),
        rows=rows,
        scores=np.where(rows < 0, -np.inf, rows / 16).astype(np.float32),
        ranks=np.where(rows < 0, -1, 0).astype(np.int32),
        sources=np.where(rows < 0, -1, 0).astype(np.int8),
    )


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def expected_triplets(table):
    rows, pair = [], 0
    for number, query in enumerate(table.queries):
        for positive in POSITIVES[number]:
            for negative, score in zip(table.rows[number], table.scores[number], strict=True):
                if negative >= 0:
                    texts = (QUERIES[query], PASSAGES[positive], PASSAGES[negative])
                    rows.append((*texts, [float(POSITIVE_SCORES[pair]), float(score)]))
            pair += 1
    return [dict(zip(("query", "positive", "negative", "scores"), row, strict=True)) for row in rows]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_triplets_equal_the_loop(table, tmp_path, monkeypatch, ending, chunk):
    monkeypatch.setattr(export_rows, "CHUNK", chunk)
    path = tmp_path / f"negatives.{ending}"
    written = write_texts(
        path,
        table,
        shape="triplets",
        queries=QUERIES,
        passages=PASSAGES,
        positives=POSITIVES,
        positive_scores=POSITIVE_SCORES,
    )
    assert read(path) == expected_triplets(table)
    assert (written.rows, written.pairs_left_out) == (4, 1)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_tuples_hold_all_negatives_or_leave_the_pair_out(table, tmp_path, ending):
    path = tmp_path / f"negatives.{ending}"
    written = write_texts(
        path,
        table,
        shape="tuples",
        queries=QUERIES,
        passages=PASSAGES,
        positives=POSITIVES,
        positive_scores=POSITIVE_SCORES,
    )
    assert read(path) == [
        {
            "query": QUERIES[2],
            "positive": PASSAGES[0],
            "negative_1": PASSAGES[4],
            "negative_2": PASSAGES[5],
            "scores": [float(np.float32(0.9)), 0.25, 0.3125],
        }
    ]
    assert (written.rows, written.pairs_left_out) == (1, 3)


def test_other_endings_are_refused_with_the_valid_ones(table, tmp_path):
    with pytest.raises(InputError, match=r"'\.csv'; the endings are \.jsonl, \.parquet"):
        write_texts(
            tmp_path / "negatives.csv",
            table,
            shape="tuples",
            queries=QUERIES,
            passages=PASSAGES,
            positives=POSITIVES,
            positive_scores=POSITIVE_SCORES,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_sentence_transformers_trains_on_both_forms(table, tmp_path, ending):
    import datasets
    import sentence_transformers
    import tokenizers
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = {word: number for number, word in enumerate(["[UNK]", "query", "passage", *"0123456"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model = sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu"
    )
    readers = {"jsonl": datasets.Dataset.from_json, "parquet": datasets.Dataset.from_parquet}
    for number, shape in enumerate(("triplets", "tuples")):
        path = tmp_path / f"{number}.{ending}"
        write_texts(
            path,
            table,
            shape=shape,
            queries=QUERIES,
            passages=PASSAGES,
            positives=POSITIVES,
            positive_scores=POSITIVE_SCORES,
        )
        data = readers[ending](str(path), cache_dir=str(tmp_path / "cache"))
        for loss in (losses.MarginMSELoss(model), losses.MultipleNegativesRankingLoss(model)):
            trainer = sentence_transformers.SentenceTransformerTrainer(
                model=model,
                args=sentence_transformers.SentenceTransformerTrainingArguments(
                    output_dir=str(tmp_path / "out"),
                    max_steps=2,
                    report_to=[],
                    use_cpu=True,
                    save_strategy="no",
                ),
                train_dataset=data,
                loss=loss,
            )
            assert np.isfinite(trainer.train().training_loss)

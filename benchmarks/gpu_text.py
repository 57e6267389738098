"""GPU sections of a text encoder: encoding beside sentence-transformers, and mining for a running training.

The encoder has random weights in the shape of BERT-base; texts are random words.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from side_by_side import Goal, Row


@dataclass(frozen=True)
class Shape:
    """How much text and how large an encoder.

    Attributes:
        passages: of so many words.
        words: of a passage on average.
        queries: of train; each has one right passage.
        hidden: width of the encoder.
        layers: of it.
        batch: pairs of a training step.
    """

    passages: int
    words: int
    queries: int
    hidden: int
    layers: int
    batch: int


ENCODE, CYCLE = Shape(20_000, 100, 0, 768, 12, 0), Shape(50_000, 60, 10_000, 768, 12, 64)
QUICK = Shape(60, 6, 40, 16, 1, 8)
VOCABULARY = 5000
# Of which the second half is trained on what was mined.
STEPS = 20
TWICE = Goal(2.0, "at least")


def encode(device: torch.device, *, quick: bool) -> list[Row]:
    """Tokens a second beside SentenceTransformer.encode, in float32 and in bf16; cosine to float32."""
    from encode import Data, compare

    shape = QUICK if quick else ENCODE
    texts = draw_texts(shape.passages, shape.words, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Path(folder), shape)
        found = compare(
            Data(texts, [], []), model=Path(folder), device=str(device), repeats=1 if quick else 2
        )
    return [Row(f"encode, {row.name}", row.ours, row.peer, row.unit, row.ratio, row.goal) for row in found]


def cycle(device: torch.device, *, quick: bool) -> list[Row]:
    """A running training's whole cycle: encode, search, draw negatives, swap the table."""
    from retrieval_cl.config import load_config
    from retrieval_cl.runs.dual_encoder import train_dual_encoder
    from retrieval_cl.runs.prepare import prepare_text
    from retrieval_cl.runs.train import encoder_for
    from retrieval_cl.sources.load import load

    shape = QUICK if quick else CYCLE
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Path(folder) / "model", shape)
        write_data(Path(folder) / "data", shape)
        settings = (
            "encoder.kind=sentence_transformer",
            f"encoder.path={folder}/model",
            f"training.batch_size={shape.batch}",
            f"training.steps={STEPS}",
            "training.rounds=2",
            "training.eval_at_start=false",
            "evaluation.keep=last",
        )
        config = load_config(None, list(settings), data=f"{folder}/data")
        data = load(config.source)
        encoder = encoder_for(config, data)
        run = train_dual_encoder(
            prepare_text(data, encoder),
            encoder,
            method=config.method,
            mining=config.mining,
            training=config.training,
            evaluation=config.evaluation,
            output=Path(folder) / "run",
        )
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    (seconds,) = (line["mining_seconds"] for line in lines if "mining_seconds" in line)
    where = f"{shape.passages:,} passages, {shape.queries:,} queries, BERT of {shape.layers} x {shape.hidden}"
    return [Row(f"encode, search, mine and swap in a running training: {where}", seconds, None, "s", None)]


def draw_texts(count: int, words: int, *, seed: int) -> list[str]:
    """Texts of random words; lengths vary by half."""
    random = np.random.default_rng(seed)
    lengths = random.integers(max(1, words // 2), words + words // 2 + 1, count)
    return [" ".join(f"w{number}" for number in random.integers(0, VOCABULARY, each)) for each in lengths]


def save_encoder(folder: Path, shape: Shape) -> None:
    """A sentence-transformers folder: BERT of random weights, whole words as tokens, mean of all tokens."""
    from sentence_transformers import SentenceTransformer, models
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import BertConfig, BertModel, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = [*special, *(f"w{number}" for number in range(VOCABULARY))]
    backend = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.hidden // 64),
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    inner = folder / "transformer"
    BertModel(config).save_pretrained(inner)
    BertTokenizerFast(tokenizer_object=backend, model_max_length=256).save_pretrained(inner)
    word = models.Transformer(str(inner))
    SentenceTransformer(modules=[word, models.Pooling(shape.hidden)]).save(str(folder))


def write_data(folder: Path, shape: Shape) -> None:
    """A data set in BEIR's layout: a query is a few words of its passage."""
    passages = draw_texts(shape.passages, shape.words, seed=0)
    owners = np.random.default_rng(1).permutation(shape.passages)[: shape.queries].tolist()
    queries = [" ".join(passages[row].split()[:8]) for row in owners]
    (folder / "qrels").mkdir(parents=True)
    _write_lines(folder / "corpus.jsonl", [("p", text) for text in passages])
    _write_lines(folder / "queries.jsonl", [("q", text) for text in queries])
    pairs = [f"q{number}\tp{row}\t1" for number, row in enumerate(owners)]
    (folder / "qrels" / "train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *pairs]) + "\n")


def _write_lines(path: Path, named: Sequence[tuple[str, str]]) -> None:
    objects = ({"_id": f"{kind}{row}", "text": text} for row, (kind, text) in enumerate(named))
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))

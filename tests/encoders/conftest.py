"""Small encoders of each kind, made here: no download."""

import pytest
import torch

from retrieval_cl.encoders.static import build_static, train_tokenizer

CORPUS = [
    "def readFile(path):\n    with open(path) as stream:\n        return stream.read()",
    "def write_json(path, value): dump the value as JSON into the file at path",
    "class HTTPServer: serve requests on a port; read the request, write the response",
    "def parse_args(argv): read the arguments of the command line",
    "sort a list of numbers and return the median of the list",
    "open a file, read its lines, close the file",
    "join the path of a folder and the name of a file",
    "the naïve café serves crème brûlée to the reader",
]


@pytest.fixture(scope="session")
def corpus():
    return list(CORPUS)


@pytest.fixture(scope="session")
def tokenizer(corpus):
    return train_tokenizer(corpus, vocab_size=400, min_count=1)


@pytest.fixture
def static_encoder(tokenizer, corpus):
    return build_static(tokenizer, corpus, dim=16, seed=0)


@pytest.fixture(scope="session")
def bert_folder(corpus, tmp_path_factory):
    """A bare transformers model with random weights: two layers, dropout, 32 positions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for text in corpus for word in text.lower().replace("(", " ").split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate(special + words)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.2,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=backend, model_max_length=32).save_pretrained(folder)
    return folder


@pytest.fixture
def build(corpus, bert_folder):
    """Builds an encoder of a kind with further settings."""
    from retrieval_cl.encoders.config import EncoderConfig
    from retrieval_cl.encoders.load import build_encoder

    kinds = {
        "static": {"kind": "static", "dim": 16, "vocab_size": 400, "min_count": 1, "init": "random"},
        "bert": {"kind": "transformer", "path": str(bert_folder)},
    }

    def make(kind, **settings):
        return build_encoder(EncoderConfig(**(kinds[kind] | settings)), corpus_texts=corpus)

    return make

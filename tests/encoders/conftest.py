"""Small encoders of each kind, made here: no download."""

import pytest
from tiny_bert import save_bert, word_backend

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
    words = {word for text in corpus for word in text.lower().replace("(", " ").split()}
    return save_bert(tmp_path_factory.mktemp("bert"), word_backend(words), hidden_dropout_prob=0.2)


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

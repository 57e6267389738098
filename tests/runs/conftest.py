"""The tiny data set in memory, an untrained encoder of it, and a way to train on it."""

import pytest
from tiny_beir import SMALL, write_tiny

from retrieval_cl.config import load_config
from retrieval_cl.runs.dual_encoder import train_dual_encoder
from retrieval_cl.runs.prepare import prepare_text
from retrieval_cl.runs.train import encoder_for
from retrieval_cl.sources.load import load


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "beir")


@pytest.fixture
def make_config(tiny_folder):
    """The small config on the tiny data, with further settings."""
    return lambda *settings: load_config(None, [*SMALL, *settings], data=str(tiny_folder))


@pytest.fixture
def tiny_data(make_config):
    return load(make_config().source)


@pytest.fixture
def encoder(make_config, tiny_data):
    return encoder_for(make_config(), tiny_data)


@pytest.fixture
def text(tiny_data, encoder):
    return prepare_text(tiny_data, encoder)


@pytest.fixture
def train_tiny(make_config, tmp_path):
    """Trains from the same first weights into a folder of its own; returns the run."""

    def train(name, *settings, data=None, extra=None, **options):
        config = make_config(*settings)
        data = load(config.source) if data is None else data
        tower = encoder_for(config, data)
        return train_dual_encoder(
            prepare_text(data, tower),
            tower,
            method=config.method,
            mining=config.mining,
            training=config.training,
            evaluation=config.evaluation,
            output=tmp_path / name,
            extra=extra,
            **options,
        )

    return train

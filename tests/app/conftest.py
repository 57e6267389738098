"""The command line in this process, and a tiny data set with a run trained on it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from stored_files import write_stored
from tiny_beir import SMALL, write_tiny

from retrieval_cl import app
from retrieval_cl.console import run_app


@dataclass
class Ran:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def line(self):
        """The one line of an error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs `retrieval-cl <arguments>` in this process."""

    def run(*arguments):
        arguments = [str(one) for one in arguments]
        monkeypatch.setattr("sys.argv", ["retrieval-cl", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_app(app.app, usage_error=app._UsageError)
        out, err = capsys.readouterr()
        return Ran(stop.value.code or 0, out, err)

    return run


@pytest.fixture
def beir(tmp_path):
    """A tiny BEIR folder of its own."""
    return write_tiny(tmp_path / "beir")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A run on the tiny data, trained and indexed once."""
    from retrieval_cl.config import load_config
    from retrieval_cl.runs.index import index_corpus
    from retrieval_cl.runs.models import find_model
    from retrieval_cl.runs.train import train

    folder = tmp_path_factory.mktemp("trained")
    data = write_tiny(folder / "beir")
    config = load_config(None, [*SMALL, f"output={folder / 'run'}"], data=str(data))
    train(config)
    index_corpus(config, find_model(str(folder / "run")), output=folder / "run" / "index")
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """A copy of that run: `run` with model/ and index/; its data lies in `beir`."""
    for name in ("run", "beir"):
        shutil.copytree(trained_once / name, tmp_path / "trained" / name)
    return tmp_path / "trained" / "run"


@pytest.fixture
def data(trained_once):
    """The data of `trained`, to read only."""
    return Path(trained_once) / "beir"


@pytest.fixture
def small():
    """`--set` arguments that make training small and quick."""
    return [one for setting in SMALL for one in ("--set", setting)]


@pytest.fixture
def stored(tmp_path):
    """A folder with q.npy, p.npy, their ids, and known.tsv."""
    return write_stored(tmp_path)

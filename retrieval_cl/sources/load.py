"""Loads the data set a config names, with a dev split and without leaks into training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.beir import read_beir
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.sources.hf import read_huggingface
from retrieval_cl.sources.pairs import read_pairs
from retrieval_cl.sources.records import RetrievalData
from retrieval_cl.sources.splits import move_queries, with_dev_split, without_leaks


def load(config: SourceConfig) -> RetrievalData:
    """Loads a data set: read by its kind, train queries that leak taken out, split as the config asks.

    `made_by` of the result tells the count of leaks ("leaked_train_queries").

    Raises:
        InputError: the data is missing or broken, or a share is asked for a split that is there.
    """
    data = READERS[config.kind](config)
    # Leaks go first: a train query that is also a test query must not become a dev query either.
    data, leaks = without_leaks(data)
    if config.test_share:
        data = _with_test_split(data, share=config.test_share, seed=config.split_seed)
    if config.dev_share:
        data = with_dev_split(data, share=config.dev_share, seed=config.split_seed)
    return dataclasses.replace(data, made_by={**data.made_by, "leaked_train_queries": leaks})


def _with_test_split(data: RetrievalData, *, share: float, seed: int) -> RetrievalData:
    if "test" in data.splits or "train" not in data.splits:
        raise InputError(
            f"source.test_share {share} has no effect: data set '{data.name}' has splits "
            f"{', '.join(data.splits)}; it takes from train where there is no test. Set it to 0"
        )
    return move_queries(data, to="test", share=share, seed=seed)


def _load_beir(config: SourceConfig) -> RetrievalData:
    return read_beir(_path(config))


def _load_pairs(config: SourceConfig) -> RetrievalData:
    return read_pairs(_path(config), columns=config.columns)


def _load_huggingface(config: SourceConfig) -> RetrievalData:
    path = str(config.path)
    return read_huggingface(path, columns=config.columns, subset=config.subset, revision=config.revision)


def _load_pydoc(config: SourceConfig) -> RetrievalData:
    from retrieval_cl.sources.pydoc import build_pydoc
    from retrieval_cl.sources.pydoc_files import default_packages, installed_packages

    packages = tuple(installed_packages()) if config.all_packages else config.packages or default_packages()
    return build_pydoc(packages=packages, max_pairs=config.max_pairs, further_pairs=config.further_pairs)


def _path(config: SourceConfig) -> Path:
    assert config.path is not None, "SourceConfig refuses these kinds without a path"
    return Path(config.path).expanduser()


READERS: dict[str, Callable[[SourceConfig], RetrievalData]] = {
    "pydoc": _load_pydoc,
    "beir": _load_beir,
    "pairs": _load_pairs,
    "huggingface": _load_huggingface,
}

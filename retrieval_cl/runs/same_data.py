"""A run that is resumed meets the data it was started on, or stops: its rows mean nothing elsewhere."""

from __future__ import annotations

from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import read_json, write_json
from retrieval_cl.core.ranks import rank
from retrieval_cl.indexing.store import hash_texts
from retrieval_cl.runs.run_folder import DATA
from retrieval_cl.sources.records import RetrievalData


def note_data(folder: Path, data: RetrievalData) -> None:
    """Notes which data the run is trained on; where that stands already, it must be the same.

    Raises:
        InputError: the run was started on other data: its checkpoints mean other rows.
    """
    facts = {
        "name": data.name,
        "num_passages": len(data.passages),
        "num_train_pairs": len(data.splits["train"].queries),
        "sha256": _hash(data),
    }
    if not (folder / DATA).is_file():
        if rank() == 0:
            write_json(folder / DATA, facts)
        return
    before = read_json(folder / DATA)
    if before != facts:
        key = next(key for key in facts if before.get(key) != facts[key])
        raise InputError(
            f"{folder / DATA}: the run was started on other data: {key} {before.get(key)}, now {facts[key]}; "
            "bring back the data it was started on, or start a new run"
        )


def _hash(data: RetrievalData) -> str:
    train = data.splits["train"]
    pairs = (column.tobytes().hex() for column in (train.queries, train.passages, train.grades))
    return hash_texts([*data.passages.full(), *data.queries.full(), *pairs])

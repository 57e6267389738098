"""Options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Set = Annotated[list[str] | None, typer.Option("--set", help="A setting: --set training.lr=1e-3")]
Data = Annotated[str | None, typer.Option(help="BEIR folder, file of pairs, Hugging Face id, or 'pydoc'.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file; default: that of the model's run.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the result goes.")]
Store = Annotated[
    Path | None,
    typer.Option(
        help="Keeps the vectors: only missing or changed texts are encoded, a killed run loses at most "
        "a shard."
    ),
]
Mode = Literal["dense", "bm25", "hybrid"]
# Those of `mining.export`, whose libraries are not for --help.
Shape = Literal["triplets", "tuples", "pairs", "lists", "flagembedding"]
Scores = Literal["vectors", "teacher", "none"]
ModelName = Annotated[str, typer.Argument(help="Run, sentence-transformers folder, or Hugging Face id.")]

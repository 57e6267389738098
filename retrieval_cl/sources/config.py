"""Settings of the data: which source is read, from where, by which columns, and how it is split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings


class ColumnNames(Settings):
    """Columns of pairs and triplets; None takes the usual names."""

    anchor: str | None = Field(default=None, description="column of the query; None: 'anchor' or 'query'")
    positive: str | None = Field(
        default=None, description="column of a matching passage; None: 'positive' or 'passage'"
    )
    negatives: tuple[str, ...] | None = Field(
        default=None,
        description="columns of passages that do not match; None: 'negative', 'negative_1', 'negative_2' ...",
    )
    split: str | None = Field(
        default=None, description="column that names each row's split; None: 'split', if it is there"
    )


class SourceConfig(Settings):
    """One text data set: queries, passages and which belong together."""

    kind: Literal["pydoc", "beir", "pairs", "huggingface"] = Field(
        default="pydoc",
        description="pydoc: docs of installed Python packages; beir: a BEIR folder; pairs: pairs or triplets "
        "in JSON lines, CSV, TSV or Parquet; huggingface: a data set of the Hub or one saved by `datasets`",
    )
    path: str | None = Field(
        default=None,
        description="beir: the folder; pairs: a file, or a folder with a file for each split; "
        "huggingface: id or folder",
    )
    columns: ColumnNames = Field(
        default=ColumnNames(), description="pairs and huggingface: the names of the columns"
    )
    subset: str | None = Field(
        default=None, description="huggingface: the name of the configuration, where there are several"
    )
    revision: str | None = Field(default=None, description="huggingface: branch, tag or commit on the Hub")
    packages: tuple[str, ...] = Field(
        default=(), description="pydoc: distributions to read; empty: those we depend on"
    )
    all_packages: bool = Field(
        default=False, description="pydoc: read every distribution installed beside us"
    )
    max_pairs: int = Field(default=60_000, ge=1, description="pydoc: documented definitions read at most")
    further_pairs: bool = Field(
        default=True, description="pydoc: also take later paragraphs of docstrings as queries, in train only"
    )
    dev_share: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="share of the train queries that becomes dev where the data has no dev split",
    )
    test_share: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="share of the train queries that becomes test where the data has no test split",
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the dev and test shares")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.kind == "pydoc" and self.path is not None:
            raise ValueError(
                f"path '{self.path}' has no effect with kind 'pydoc'; set kind to {_kinds_with('path')}"
            )
        if self.kind != "pydoc" and self.path is None:
            raise ValueError(f"kind '{self.kind}' needs a path")
        for key, kinds in _USED_BY.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no effect with kind '{self.kind}'; only with {_kinds_with(key)}")
        return self


_USED_BY = {
    "path": ("beir", "pairs", "huggingface"),
    "columns": ("pairs", "huggingface"),
    "subset": ("huggingface",),
    "revision": ("huggingface",),
    "packages": ("pydoc",),
    "all_packages": ("pydoc",),
    "max_pairs": ("pydoc",),
    "further_pairs": ("pydoc",),
}


def _kinds_with(key: str) -> str:
    return " or ".join(f"'{kind}'" for kind in _USED_BY[key])

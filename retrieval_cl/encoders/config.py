"""Settings of the text encoder. Light: imported by the command line before any model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from retrieval_cl.settings import Settings

EncoderKind = Literal["static", "sentence_transformer", "transformer"]
Pooling = Literal["mean", "cls", "lasttoken"]
Towers = Literal["shared", "separate"]
Init = Literal["random", "lsa"]


class EncoderConfig(Settings):
    """What embeds the texts. A setting that has no effect for the chosen kind is an error."""

    kind: EncoderKind = Field(
        "static",
        description="static: one vector a token, tokenizer trained on the corpus, no download; "
        "sentence_transformer: a trained model; transformer: a bare transformers encoder plus pooling",
    )
    path: str | None = Field(
        None, description="folder or Hugging Face id of the model to start from (all kinds but static)"
    )
    towers: Towers = Field(
        "shared",
        description="shared: one set of weights; separate: queries and passages start equal, then part",
    )
    max_tokens: int | None = Field(
        None, ge=1, description="texts are cut to so many tokens; null: the model's limit, none for static"
    )
    query_prompt: str | None = Field(
        None, description="put before each query, spaces included; null: the model's own, '': none"
    )
    passage_prompt: str | None = Field(
        None, description="put before each passage, spaces included; null: the model's own, '': none"
    )
    pooling: Pooling = Field("mean", description="from token vectors to one vector (kind transformer)")
    dim: int = Field(512, ge=2, le=8192, description="numbers in a vector (kind static)")
    vocab_size: int = Field(
        30_000, ge=2, le=1_000_000, description="tokens in the vocabulary, at most (kind static)"
    )
    whole_words: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of the vocabulary for whole words, the rest for pieces (kind static)",
    )
    min_count: int = Field(2, ge=1, description="a word seen less often is cut into pieces (kind static)")
    keep_punctuation: bool = Field(False, description="each punctuation mark is a token (kind static)")
    token_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of tokens left out at random in training (kind static)"
    )
    init: Init = Field(
        "lsa",
        description="first directions of token vectors: from the texts they share, or random (kind static)",
    )
    idf_power: float = Field(
        1.0, ge=0, le=4, description="first length of a token vector is its idf to this power (kind static)"
    )

    @model_validator(mode="after")
    def _check_kind(self) -> EncoderConfig:
        if self.kind != "static" and not self.path:
            raise ValueError(f"kind '{self.kind}' needs path: a folder or a Hugging Face id")
        for name, kinds in _EFFECTIVE.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                # Compared with the default, not with what was given: a dumped config must load again.
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} has no effect with kind '{self.kind}'; "
                    f"remove it or set kind to {' or '.join(kinds)}"
                )
        return self


_STATIC_ONLY = (
    "dim",
    "vocab_size",
    "whole_words",
    "min_count",
    "keep_punctuation",
    "token_dropout",
    "init",
    "idf_power",
)
_EFFECTIVE: dict[str, tuple[EncoderKind, ...]] = {
    "path": ("sentence_transformer", "transformer"),
    "pooling": ("transformer",),
    **dict.fromkeys(_STATIC_ONLY, ("static",)),
}

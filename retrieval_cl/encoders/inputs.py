"""From texts to token ids, once, and from token ids to what the first module of a tower wants."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged

Features = dict[str, Any]
_PADDED = frozenset({"input_ids", "attention_mask", "token_type_ids"})
# Encodings hold far more than their ids: a chunk bounds what stands in memory beside the result.
_STATIC_CHUNK = 8192
_TRANSFORMER_CHUNK = 1024
_LARGE_BATCH, _CACHED_BATCH = 32_768, 512


class TokenInput(ABC):
    """Tokenises for one tower and collates token ids into the features its first module reads."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """Token ids (int32) of each text: prompt and special tokens included, cut to the maximum length."""

    @abstractmethod
    def collate(self, tokens: Ragged, *, device: torch.device) -> Features:
        """Features of one batch; a row without tokens is allowed."""

    @abstractmethod
    def batch_tokens(self, device: torch.device) -> int:
        """Tokens to embed together, padding included, for the most tokens a second."""

    @abstractmethod
    def describe(self) -> str:
        """All that decides the token ids of a text, as one string: part of the encoder's fingerprint."""


def make_token_input(module: Any, *, task: str, prompt: str) -> TokenInput:
    """The input of a tower by the type of its first module.

    Raises:
        InputError: the module is of no type we know.
    """
    makers: dict[type, Callable[[], TokenInput]] = {
        StaticEmbedding: lambda: StaticInput(module.tokenizer, prompt=prompt),
        Transformer: lambda: TransformerInput(module, task=task, prompt=prompt),
    }
    if type(module) not in makers:
        known = " or ".join(sorted(kind.__name__ for kind in makers))
        given = type(module).__name__
        raise InputError(f"the model's first module is {given}; an encoder starts with {known}")
    return makers[type(module)]()


class StaticInput(TokenInput):
    """Token ids in one flat row with offsets, as an embedding bag reads them."""

    def __init__(self, tokenizer: Tokenizer, *, prompt: str) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt

    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """See the base class. No special tokens, as `StaticEmbedding.preprocess` has it."""
        rows: list[Int32[np.ndarray, " _"]] = []
        for start in range(0, len(texts), _STATIC_CHUNK):
            chunk = [self._prompt + text for text in texts[start : start + _STATIC_CHUNK]]
            encodings = self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            rows.extend(np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
        return _join(rows)

    def collate(self, tokens: Ragged, *, device: torch.device) -> Features:
        """See the base class: `input_ids` of all rows in one, `offsets` of each row's first."""
        return {
            "input_ids": torch.from_numpy(tokens.values.astype(np.int64)).to(device, non_blocking=True),
            "offsets": torch.from_numpy(tokens.offsets[:-1]).to(device, non_blocking=True),
        }

    def batch_tokens(self, device: torch.device) -> int:
        """See the base class; a row costs so little that large batches pay everywhere."""
        return _LARGE_BATCH

    def describe(self) -> str:
        """See the base class; a limit on tokens stands in the tokenizer itself."""
        return json.dumps([self._prompt, json.loads(self._tokenizer.to_str())], sort_keys=True)


class TransformerInput(TokenInput):
    """Token ids padded to the longest row of the batch, with their attention mask."""

    def __init__(self, module: Transformer, *, task: str, prompt: str) -> None:
        self._module = module
        self._task = task
        self._prompt = prompt
        probe = self._preprocess(["a"])
        self._has_types = "token_type_ids" in probe
        self._extras = {name: value for name, value in probe.items() if name not in _PADDED}
        self._refuse_unknown(probe)
        self._pad = module.tokenizer.pad_token_id
        self._pad_left = module.tokenizer.padding_side == "left"

    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """See the base class; the module's own `preprocess` gives the ids, so they are those of `encode`."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        rows: list[Int32[np.ndarray, " _"]] = [np.empty(0, dtype=np.int32)] * len(texts)
        for start in range(0, len(order), _TRANSFORMER_CHUNK):
            chunk = order[start : start + _TRANSFORMER_CHUNK]
            features = self._preprocess([texts[row] for row in chunk])
            mask = features["attention_mask"].numpy().astype(bool)
            ids = features["input_ids"].numpy().astype(np.int32)
            for row, row_ids, row_mask in zip(chunk, ids, mask, strict=True):
                rows[row] = row_ids[row_mask]
        return _join(rows)

    def collate(self, tokens: Ragged, *, device: torch.device) -> Features:
        """See the base class. A row without tokens attends to one padding token."""
        # Attention to nothing at all would be NaN.
        counts = np.maximum(tokens.counts, 1)
        width = int(counts.max(initial=1))
        column = np.arange(width)[None, :]
        shift = width - counts[:, None] if self._pad_left else np.zeros((len(tokens), 1), dtype=np.int64)
        mask = (column >= shift) & (column < shift + counts[:, None])
        filled = mask & (tokens.counts > 0)[:, None]
        ids = np.full(mask.shape, self._pad, dtype=np.int64)
        ids[filled] = tokens.values
        features: Features = {
            "input_ids": torch.from_numpy(ids).to(device, non_blocking=True),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(device, non_blocking=True),
        }
        if self._has_types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        return features | self._extras

    def batch_tokens(self, device: torch.device) -> int:
        """See the base class; on a processor more of them leave the cache, and cost half as much again."""
        return _CACHED_BATCH if device.type == "cpu" else _LARGE_BATCH

    def describe(self) -> str:
        """See the base class."""
        backend = describe_tokenizer(self._module.tokenizer)
        lengths = [self._module.max_seq_length, self._module.query_length, self._module.document_length]
        return json.dumps([self._prompt, lengths, backend], sort_keys=True)

    def _preprocess(self, texts: list[str]) -> Features:
        # `preprocess` answers a BatchEncoding, whose values are reached as a dict's.
        return dict(self._module.preprocess(texts, prompt=self._prompt or None, task=self._task))

    def _refuse_unknown(self, probe: Features) -> None:
        name = type(self._module.model).__name__
        tensors = [key for key, value in self._extras.items() if isinstance(value, torch.Tensor)]
        if tensors or "attention_mask" not in probe:
            known = ", ".join(sorted(_PADDED))
            raise InputError(f"{name} reads {', '.join(sorted(probe))}; an encoder reads {known} only")
        if self._has_types and bool(probe["token_type_ids"].any()):
            raise InputError(
                f"{name}'s tokenizer makes token types other than 0; an encoder knows only type 0"
            )
        if self._module.tokenizer.pad_token_id is None:
            raise InputError(
                f"{name}'s tokenizer has no padding token; set pad_token in tokenizer_config.json"
            )


def describe_tokenizer(tokenizer: Any) -> Any:
    """What decides the ids that a tokenizer of transformers gives, for JSON."""
    if not tokenizer.is_fast:
        return sorted(tokenizer.get_vocab().items())
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left over from the last call, not a property of the tokenizer.
    backend.pop("truncation", None)
    backend.pop("padding", None)
    return backend


def _join(rows: Sequence[Int32[np.ndarray, " _"]]) -> Ragged:
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    return Ragged(offsets, values)

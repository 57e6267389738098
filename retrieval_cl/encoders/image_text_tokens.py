"""Captions as the text tower of a CLIP or SigLIP model reads them: its tokenizer, its length, its padding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.inputs import describe_tokenizer

# `do_not_pad`: of rows of any length the tower reads what stands before their end; `max_length`: it was
# trained on rows of one length, and reads the padding too.
Padding = Literal["do_not_pad", "max_length"]
_CHUNK = 1024


@final
class CaptionTokens:
    """Tokenises captions and collates their ids.

    Attributes:
        tokenizer: of transformers.
        limit: tokens of a caption at most, special tokens included.
    """

    def __init__(self, tokenizer: Any, *, limit: int, padding: Padding) -> None:
        """`limit`: positions of the text tower; the tokenizer's own limit may be lower."""
        self.tokenizer = tokenizer
        self.limit = min(limit, tokenizer.model_max_length)
        self._padding = padding

    def tokenize(self, texts: Sequence[str]) -> Ragged:
        """Token ids (int32) of each text: special tokens included, and the padding that the tower reads."""
        rows: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            found = self.tokenizer(
                list(texts[start : start + _CHUNK]),
                truncation=True,
                max_length=self.limit,
                padding=self._padding,
                return_attention_mask=False,
            )
            rows.extend(found["input_ids"])
        return Ragged.from_lists(rows, dtype=np.int32)

    def collate(self, tokens: Ragged, *, device: torch.device) -> Int64[Tensor, "B L"]:
        """A rectangle of ids, padded as the tokenizer pads. No mask: neither tower is trained with one.

        CLIP looks back only, from the first end of a text, so that padding behind it has no effect.
        """
        counts = tokens.counts
        width = self.limit if self._padding == "max_length" else max(1, int(counts.max(initial=1)))
        column = np.arange(width)[None, :]
        left = self.tokenizer.padding_side == "left"
        shift = width - counts[:, None] if left else np.zeros((len(tokens), 1), dtype=np.int64)
        ids = np.full((len(tokens), width), self.tokenizer.pad_token_id, dtype=np.int64)
        ids[(column >= shift) & (column < shift + counts[:, None])] = tokens.values
        return torch.from_numpy(ids).to(device, non_blocking=True)

    def describe(self) -> str:
        """All that decides the token ids of a text, as one string: part of the encoder's fingerprint."""
        tokenizer = self.tokenizer
        facts = [self.limit, self._padding, tokenizer.padding_side, tokenizer.pad_token_id]
        return json.dumps([facts, describe_tokenizer(tokenizer)], sort_keys=True)

    def save(self, folder: Path) -> None:
        """Writes what `AutoTokenizer` loads."""
        if self.tokenizer.is_fast:
            # Left over from the last call, not a property of the tokenizer.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(folder)

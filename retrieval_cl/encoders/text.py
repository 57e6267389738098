"""The text encoder: sentence-transformers modules, fed with token ids, giving unit rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router
from torch import Tensor, nn
from torch.nn import functional

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import new_folder
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.ahead import token_windows
from retrieval_cl.encoders.casting import Forward, forward_in
from retrieval_cl.encoders.encoding import (
    Progress,
    collect,
    embed_text_batches,
    evaluating,
    refuse_not_finite,
)
from retrieval_cl.encoders.fingerprint import fingerprint_modules
from retrieval_cl.encoders.inputs import TokenInput, make_token_input
from retrieval_cl.encoders.quiet import no_progress_bars

Kind = Literal["query", "passage"]

# sentence-transformers' words for the two kinds: names of routes, of prompts, and of the `task` of a call.
TASKS: dict[Kind, str] = {"query": "query", "passage": "document"}


@final
class TextEncoder(nn.Module):
    """Embeds queries and passages into unit rows. Wraps a SentenceTransformer, which it saves as it is.

    `SentenceTransformer(folder).encode_query` and `.encode_document` give the vectors of `encode` with kind
    "query" and "passage"; without prompts and with a shared tower, plain `.encode` does too.

    Attributes:
        model: the modules; ends in Normalize.
        dim: length of a vector.
    """

    def __init__(self, model: SentenceTransformer, *, token_dropout: float = 0.0) -> None:
        """Takes over `model`: appends Normalize where it lacks one, puts prompts under "query", "document".

        In training, each token is left out with probability `token_dropout` (a bag of tokens can spare some).

        Raises:
            InputError: the model has an input module we cannot feed, or cuts its vectors (`truncate_dim`).
        """
        super().__init__()
        if model.truncate_dim is not None:
            raise InputError(
                f"the model's truncate_dim is {model.truncate_dim}, but cut vectors are no unit vectors; "
                "remove it from config_sentence_transformers.json"
            )
        if not _ends_in_normalize(model):
            model.append(Normalize())
        model.prompts |= {"query": model.prompts.get("query") or "", "document": _passage_prompt(model)}
        assert 0 <= token_dropout < 1, token_dropout
        self.model = model
        self._token_dropout = token_dropout
        self._inputs: dict[Kind, TokenInput] = {
            kind: make_token_input(_first_module(model, task), task=task, prompt=model.prompts[task])
            for kind, task in TASKS.items()
        }
        self.dim = int(model.get_embedding_dimension())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def has_separate_towers(self) -> bool:
        """Whether queries and passages have modules of their own."""
        return isinstance(self.model[0], Router)

    def tokenize(self, texts: Sequence[str], *, kind: Kind) -> Ragged:
        """Token ids (int32) of each text: prompt and special tokens included, cut to the maximum length."""
        return self._inputs[kind].tokenize(texts)

    def batch_tokens(self, *, kind: Kind) -> int:
        """Tokens to embed together, padding included, for the most tokens a second on the device."""
        return self._inputs[kind].batch_tokens(self.device)

    def embed(self, tokens: Ragged, *, kind: Kind) -> Float[Tensor, "B D"]:
        """Unit rows with gradient, on the module's device; zeros where a static encoder gets no tokens."""
        if self.training and self._token_dropout > 0:
            tokens = drop_tokens(tokens, self._token_dropout)
        return self._embed(tokens, kind=kind, forward=self.model)

    def encode(
        self,
        inputs: Sequence[str] | Ragged,
        *,
        kind: Kind,
        batch_tokens: int | None = None,
        compute_dtype: torch.dtype | None = None,
        progress: Progress | None = None,
        numbers: Int64[np.ndarray, " N"] | None = None,
    ) -> Float32[np.ndarray, "N D"]:
        """Unit rows of texts, or of what `tokenize` gave, in the given order; no gradient, no dropout.

        Args:
            inputs: texts or token ids.
            kind: which prompt and tower.
            batch_tokens: tokens embedded together, padding included; None: what is fast on the device.
            compute_dtype: type to compute in (bfloat16); None: that of the weights.
            progress: called with rows done and rows in all after each batch.
            numbers: how an error calls the rows; None: from 0 on.

        Raises:
            InputError: a vector is NaN or infinite; names the first such row.
        """
        assert not isinstance(inputs, str), "one text is a list of one text"
        budget = batch_tokens or self.batch_tokens(kind=kind)
        windows = token_windows(inputs, tokenize=self._inputs[kind].tokenize)
        with evaluating(self), torch.inference_mode(), forward_in(self.model, compute_dtype) as forward:
            embed = partial(self._embed, kind=kind, forward=forward)
            batches = embed_text_batches(windows, embed=embed, batch_tokens=budget)
            vectors = collect(batches, num_rows=len(inputs), dim=self.dim, progress=progress)
        refuse_not_finite(vectors, what=kind, numbers=numbers)
        return vectors

    def fingerprint(self) -> str:
        """SHA-256, in hex, over all that decides a vector.

        Weights and their type, modules and their settings, tokenizers, prompts, lengths. Equal before and
        after saving and loading; any one changed weight changes it.
        """
        facts = [f"{kind}:{source.describe()}" for kind, source in self._inputs.items()]
        return fingerprint_modules(self.model, facts=[f"dim:{self.dim}", *facts])

    def save(self, folder: Path) -> None:
        """Writes a folder that `SentenceTransformer(str(folder))` loads, whole or not at all."""
        with new_folder(folder) as part, no_progress_bars():
            self.model.save(str(part), create_model_card=False)
            (part / "README.md").write_text(_model_card(self), encoding="utf8")

    def _embed(self, tokens: Ragged, *, kind: Kind, forward: Forward) -> Float[Tensor, "B D"]:
        features = self._inputs[kind].collate(tokens, device=self.device)
        vectors: Tensor = forward(features, task=TASKS[kind])["sentence_embedding"]
        # In a shorter type a row's length is 1 to two digits only.
        return vectors if vectors.dtype == torch.float32 else functional.normalize(vectors.float(), dim=-1)


def drop_tokens(tokens: Ragged, share: float) -> Ragged:
    """Leaves each token out with this probability (torch's generator); a row never loses all its tokens."""
    kept = torch.rand(len(tokens.values)).numpy() >= share
    rows = tokens.rows
    counts = np.bincount(rows[kept], minlength=len(tokens))
    kept |= (counts == 0)[rows]
    counts = np.where(counts == 0, tokens.counts, counts)
    return Ragged(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), tokens.values[kept])


def _first_module(model: SentenceTransformer, task: str) -> Any:
    first = model[0]
    if not isinstance(first, Router):
        return first
    return first.sub_modules[first._resolve_route(task=task, modality="text")][0]


def _ends_in_normalize(model: SentenceTransformer) -> bool:
    last = model[-1]
    ends = [route[-1] for route in last.sub_modules.values()] if isinstance(last, Router) else [last]
    return all(isinstance(end, Normalize) for end in ends)


def _passage_prompt(model: SentenceTransformer) -> str:
    # Names in use for one thing; sentence-transformers has "" under "document" where a model names "passage".
    names = ("document", "passage", "corpus")
    return next((prompt for name in names if (prompt := model.prompts.get(name))), "")


def _model_card(encoder: TextEncoder) -> str:
    prompts = {kind: encoder.model.prompts[task] for kind, task in TASKS.items()}
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags:\n- sentence-transformers\n- feature-extraction\n- retrieval-cl\n---\n\n"
        f"# Text encoder\n\nUnit vectors of {encoder.dim} numbers, made by retrieval-cl. "
        f"Prompts: {prompts}. Use `encode_query` and `encode_document`.\n"
    )

"""What makes two encoders the same: a hash over all that decides their vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

# Written anew by each save, or left over from a load; none of them decides a vector.
NO_MATTER = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


def fingerprint_modules(modules: nn.Module, *, facts: Iterable[str]) -> str:
    """SHA-256, in hex, over facts, module settings, and every weight's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(fact.encode("utf8") + b"\0")
    for name, module in modules.named_modules():
        # sentence-transformers' modules, not the layers inside: pooling mode, model configuration.
        keys: list[str] | None = getattr(module, "config_keys", None)
        if keys is not None:
            digest.update(f"{name}:{type(module).__name__}:{_settings(module, keys)}".encode() + b"\0")
    for name, weight in modules.state_dict().items():
        digest.update(f"{name}:{weight.dtype}:{tuple(weight.shape)}".encode() + b"\0")
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(module: nn.Module, keys: Iterable[str]) -> str:
    settings: dict[str, Any] = {key: getattr(module, key, None) for key in keys}
    config: Any = getattr(module, "config", None)
    if hasattr(config, "to_dict"):
        # Number of heads, epsilon and the like: with equal weights they give other vectors.
        settings |= {key: value for key, value in config.to_dict().items() if key not in NO_MATTER}
    return json.dumps(settings, sort_keys=True, default=str)

"""The machine a run is on: where to compute, and a line about it for reports."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import nn

Encoder = TypeVar("Encoder", bound=nn.Module)


def on_device(encoder: Encoder) -> Encoder:
    """The encoder on the first GPU where there is one, else on the CPU."""
    return encoder.to("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> str:
    """Processor, cores, memory and GPU, and the versions of Python and torch, in one line."""
    memory = psutil.virtual_memory().total / 2**30
    parts = [f"{_processor()}, {_num_cores()} cores, {memory:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return "; ".join([*parts, f"Python {platform.python_version()}", f"torch {torch.__version__}"])


def _num_cores() -> int:
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf8").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

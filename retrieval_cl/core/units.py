"""Whether a device multiplies matrices of half precision by units of its own."""

from __future__ import annotations

import torch


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products in bf16 or fp16 are faster there than in float32; true for wider types.

    A processor without such units imitates them, an order of magnitude slower than float32.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found, kind = torch.cpu.get_capabilities(), "bf16" if dtype == torch.bfloat16 else "fp16"
        return bool(found.get(f"avx512_{kind}") or found.get(f"amx_{kind}"))
    return False

"""What number format to compute in."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["DType", "choose_dtype"]

DType = Literal["auto", "bfloat16", "float32", "float16"]


def choose_dtype(name: DType, device: str) -> torch.dtype:
    """The number format to compute in; ``auto`` takes bfloat16 where the processor multiplies it natively.

    Example:
        >>> choose_dtype("float32", "cpu")
        torch.float32
    """
    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}[name]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    abilities = torch.cpu.get_capabilities()
    native = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
    return torch.bfloat16 if device == "cpu" and native else torch.float32

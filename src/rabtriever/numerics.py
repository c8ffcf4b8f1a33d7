"""What number format to compute in."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

__all__ = ["DType", "bound_kernel_cache", "choose_dtype", "processor_abilities"]

DType = Literal["auto", "bfloat16", "float32", "float16"]


_KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def bound_kernel_cache() -> None:
    """Let oneDNN keep 64 kernels, not its 1,024: every length of text has some of its own, of half a megabyte each.

    Half a gigabyte less after two hundred different queries, and no slower (docs/performance.md). A setting of the
    environment's own stays; once this process has multiplied with oneDNN, it is too late.

    Example:
        >>> bound_kernel_cache()
    """
    os.environ.setdefault(_KERNELS, "64")


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
    abilities = processor_abilities()
    native = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
    return torch.bfloat16 if device == "cpu" and native else torch.float32


def processor_abilities() -> dict[str, Any]:
    """What the processor is and can do, by the names that torch gives it.

    Example:
        >>> processor_abilities().get("mmx_of_the_year_3000", False)
        False
    """
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    # Releases before 2.12 tell it by a private function for each.
    asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {name: bool(getattr(torch.cpu, function, bool)()) for name, function in asked.items()}

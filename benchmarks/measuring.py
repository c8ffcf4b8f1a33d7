"""How the benchmarks measure: interleaved repetitions, their median, and the two ceilings of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Ceilings", "ceilings", "interleaved", "machine"]


def interleaved(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each piece of work, a round of all of them ``repeats`` times after one to warm up.

    What slows the machine down for a while slows them all, so that their ratios hold.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(repeats + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at most.

    Attributes:
        flops: GEMM FLOP/s in each dtype, at the model's shapes.
        read: Bytes a second that a sum over a large array reads.
        copy: Bytes a second that a copy moves, read and written bytes both counted.
    """

    flops: dict[str, float]
    read: float
    copy: float

    def seconds(self, dtype: str, flops: float, bytes_read: float) -> float:
        """The least time that work of so many FLOP and so many bytes can take: the larger of its two limits."""
        return max(flops / self.flops[dtype], bytes_read / self.read)


def ceilings(model: torch.nn.Module, dtypes: list[torch.dtype], tokens: int = 2048, repeats: int = 7) -> Ceilings:
    """Measure the machine: the model's own matrix shapes on ``tokens`` rows, and 512 MiB of memory."""
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    flops = {_name(dtype): _gemm(shapes, dtype, tokens, repeats) for dtype in dtypes}
    source = torch.ones(1 << 27)
    target = torch.empty_like(source)
    seconds = interleaved({"read": source.sum, "copy": lambda: target.copy_(source)}, repeats)
    return Ceilings(flops, source.nbytes / seconds["read"], 2 * source.nbytes / seconds["copy"])


def _gemm(shapes: list[tuple[int, ...]], dtype: torch.dtype, tokens: int, repeats: int) -> float:
    """FLOP/s over one product of each distinct shape, weighted by how often the model has it."""
    total, spent = 0.0, 0.0
    for shape in sorted(set(shapes)):
        weight = torch.randn(shape).to(dtype)
        rows = torch.randn(tokens, shape[1]).to(dtype)
        with torch.inference_mode():
            seconds = interleaved({"gemm": lambda w=weight, x=rows: torch.nn.functional.linear(x, w)}, repeats)["gemm"]  # type: ignore[misc]
        count = shapes.count(shape)
        total += count * 2.0 * tokens * shape[0] * shape[1]
        spent += count * seconds
    return total / spent


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, threads and versions."""
    import sentence_transformers
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

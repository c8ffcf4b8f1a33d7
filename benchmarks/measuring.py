"""How the benchmarks measure: interleaved repetitions, medians, and the two ceilings of the machine beside them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Work = Mapping[str, Callable[[], object]]


@dataclass
class Ceilings:
    """What the machine can do at most, measured between the pieces of work, so that both meet the same machine.

    Args:
        shapes: Of the model's matrices, each as often as the model has it.
        dtypes: To multiply them in.
        tokens: Rows that are multiplied at once.
    """

    shapes: list[tuple[int, int]]
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    tokens: int = 2048
    found: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        sizes = sorted({size for shape in self.shapes for size in shape})
        self._rows = {size: torch.randn(self.tokens, size, generator=rng) for size in sizes}
        self._weights = {shape: torch.randn(shape, generator=rng) for shape in set(self.shapes)}
        self._memory = torch.ones(1 << 26), torch.empty(1 << 26)

    @classmethod
    def of(cls, model: torch.nn.Module, **options: Any) -> Ceilings:
        """For the linear maps of a model."""
        maps = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        return cls([(m.out_features, m.in_features) for m in maps], **options)

    @property
    def parameters(self) -> int:
        """Weights of all linear maps: a token costs twice as many FLOP."""
        return sum(rows * columns for rows, columns in self.shapes)

    @torch.inference_mode()
    def sample(self) -> None:
        """Measure once more."""
        for dtype in self.dtypes:
            rows = {size: x.to(dtype) for size, x in self._rows.items()}
            spent = 0.0
            for shape, weight in self._weights.items():
                cast = weight.to(dtype)
                start = time.perf_counter()
                torch.nn.functional.linear(rows[shape[1]], cast)
                spent += self.shapes.count(shape) * (time.perf_counter() - start)
            self._keep(_name(dtype), 2.0 * self.parameters * self.tokens / spent)
        source, target = self._memory
        for name, do, volume in (("read", source.sum, 1), ("copy", lambda: target.copy_(source), 2)):
            start = time.perf_counter()
            do()
            self._keep(name, volume * source.nbytes / (time.perf_counter() - start))

    def flops(self, dtype: str) -> float:
        """GEMM FLOP/s: the median of the samples."""
        return statistics.median(self.found[dtype])

    def limit(self, dtype: str, tokens: int) -> float:
        """Seconds that reading so many tokens takes at least: FLOP, or every weight read once."""
        size = torch.finfo(getattr(torch, dtype)).bits // 8
        read = self.parameters * size / statistics.median(self.found["read"])
        return max(2.0 * self.parameters * tokens / self.flops(dtype), read)

    def report(self) -> dict[str, dict[str, float]]:
        """Median and best of each, in giga a second."""
        return {
            name: {"median": statistics.median(values) / 1e9, "best": max(values) / 1e9, "samples": len(values)}
            for name, values in self.found.items()
        }

    def _keep(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)


def interleaved(work: Work, repeats: int, ceilings: Ceilings | None = None) -> dict[str, float]:
    """Median seconds of each piece of work: rounds of all of them, after one to warm up.

    What slows the machine down for a while slows them all, so that their ratios hold.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(repeats + 1):
        for name, do in work.items():
            if ceilings is not None and round_:
                ceilings.sample()
            start = time.perf_counter()
            do()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, threads and versions."""
    import sentence_transformers
    import transformers

    try:
        import openvino

        runtime = openvino.get_version()
    except ImportError:
        runtime = None
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "openvino": runtime,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Search over N stored vectors: p50 and p95 per query, recall at 10, memory and disk, for each way of searching.

    python benchmarks/search.py --documents 20000
    python benchmarks/search.py --documents 1000000 --vectors model_vectors.npy

Vectors are drawn from clusters with log-normal norms, a common mean and a few huge dimensions, as a language model's
hidden states have them; better, give real ones (``--vectors``, an .npy file of float32 ``(n, d)``, repeated with noise
up to N). Recall is against an exact search in float64. One query at a time, after a warm-up; set OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rabtriever.data import Document
from rabtriever.index import Hit, Index
from rabtriever.index.threads import in_parallel

_CLUSTERS = 1000


@dataclass
class _Prompt:
    hash: str = "benchmark"


@dataclass
class _Teacher:
    prompt: _Prompt = field(default_factory=_Prompt)

    def score(self, query: str, documents: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


class Vectors:
    """A model whose vectors are drawn: a text is the number of its vector."""

    def __init__(self, dimension: int, real: np.ndarray | None) -> None:
        rng = np.random.default_rng(0)
        self.dimension = dimension if real is None else real.shape[1]
        self.bias, self.path, self.reranker = 0.0, None, _Teacher()
        self.fingerprint = self.document_fingerprint = f"benchmark {self.dimension}"
        self._real = real
        self._centres = rng.standard_normal((_CLUSTERS, self.dimension)).astype(np.float32)
        self._mean = rng.standard_normal(self.dimension).astype(np.float32)

    def encode_document(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(int(text)) for text in texts])

    def encode_query(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(-1 - int(text)) for text in texts])

    def _vector(self, number: int) -> np.ndarray:
        rng = np.random.default_rng(number + 2**40)
        noise = rng.standard_normal(self.dimension).astype(np.float32)
        if self._real is not None:
            row = self._real[number % len(self._real)]
            return row + 0.1 * float(np.abs(row).mean()) * noise
        vector = (self._centres[rng.integers(_CLUSTERS)] + 0.5 * noise) * np.float32(rng.lognormal(0, 0.5)) + self._mean
        vector[:3] *= 100 if number >= 0 else 0.01
        return vector


def documents(count: int) -> Iterator[Document]:
    for number in range(count):
        yield Document(f"d{number}", str(number), metadata={"percent": number % 100, "number": number})


def timed(search: Callable[[str], list[Hit]], queries: list[str]) -> tuple[list[list[str]], dict[str, float]]:
    """Ids found for each query, and milliseconds."""
    search(queries[0])
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        hits = search(query)
        times.append(1000 * (time.perf_counter() - start))
        found.append([hit.id for hit in hits])
    return found, {"p50_ms": float(np.percentile(times, 50)), "p95_ms": float(np.percentile(times, 95))}


def recall(found: list[list[str]], truth: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(found, truth, strict=True)]))


def ceilings(size: int) -> dict[str, float]:
    """Milliseconds to read so many bytes in all processors, as quickly as this machine's memory gives them."""
    block = np.ones(min(size, 1 << 30) // 8, np.uint64)
    parts = np.array_split(block, 64)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        in_parallel(np.bitwise_or.reduce, parts)
        times.append((time.perf_counter() - start) * size / block.nbytes)
    return {"read_float32_ms": 1000 * float(np.median(times)), "best_ms": 1000 * min(times)}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory(path: Path, queries: list[str], dimension: int) -> dict[str, int]:
    """Of a process that opens the index and searches: what is its own, and what it has mapped, which can be dropped."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        before, after = pool.submit(_memory, path, queries, dimension).result()
    return {
        "before_bytes": before.rss,
        "own_bytes": after.rss - after.shared - (before.rss - before.shared),
        "mapped_bytes": after.shared - before.shared,
    }


def _memory(path: Path, queries: list[str], dimension: int) -> tuple[Any, Any]:
    model, this = Vectors(dimension, None), psutil.Process()
    before = this.memory_info()
    with Index.open(path, model) as index:
        for query in queries:
            index.search(query)
        return before, this.memory_info()


def half(
    arguments: argparse.Namespace, folder: Path, model: Vectors, queries: list[str], truth: list[list[str]]
) -> dict[str, object]:
    """What storing the same vectors as float16 saves and loses."""
    index = Index.create(folder / "half", model, dtype="float16")
    index.add(documents(arguments.documents), batch_size=8192)
    found, _ = timed(lambda query: index.search(query), queries)
    return {"recall_at_10": recall(found, truth), "table_bytes": size(index.path)}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    real = None if arguments.vectors is None else np.load(arguments.vectors, mmap_mode="r")
    model = Vectors(arguments.dimension, real)
    path = folder / "index"
    index = Index.create(path, model)
    start = time.perf_counter()
    index.add(documents(arguments.documents), batch_size=8192)
    report: dict[str, object] = {"documents": len(index), "dimension": model.dimension}
    report["add_seconds"] = time.perf_counter() - start
    report["table_bytes"] = size(path)
    queries = [str(number) for number in range(arguments.queries)]
    report["ceilings"] = ceilings(arguments.documents * model.dimension * 4)
    truth, report["exact"] = timed(lambda query: index.search(query), queries)
    for percent in (1, 10, 50):
        _, report[f"exact, {percent} % of rows"] = timed(
            lambda query, p=percent: index.search(query, filter=f"percent < {p}"),
            queries,  # type: ignore[misc]
        )
    start = time.perf_counter()
    header = index.accelerate([str(number) for number in range(10_000, 10_064)])
    report["cache"] = {
        "seconds": time.perf_counter() - start,
        "codes": header.codes,
        "self_check_recall": header.recall,
        "bytes": size(path / "cache"),
    }
    start = time.perf_counter()
    index = Index.open(path, model)
    index.search(queries[0])
    report["open_and_first_search_seconds"] = time.perf_counter() - start
    found, report["cached"] = timed(lambda query: index.search(query), queries)
    report["cached_recall_at_10"] = recall(found, truth)
    report["cached_memory"] = memory(path, queries, model.dimension)
    _, report["cached, 50 % of rows"] = timed(lambda query: index.search(query, filter="percent < 50"), queries)
    header = index.accelerate([str(number) for number in range(10_000, 10_300)], fast=True)
    found, report["cached, single bits tried"] = timed(lambda query: index.search(query), queries)
    report["single_bits"] = {"codes": header.codes, "self_check_recall": header.bits_recall}
    report["single_bits_recall_at_10"] = recall(found, truth)
    report["single_bits_memory"] = memory(path, queries, model.dimension)

    def after_upsert(query: str) -> list[Hit]:
        index.upsert([Document(f"new{query}", str(arguments.documents + int(query)))])
        return index.search(query)

    _, report["upsert of one, then search"] = timed(after_upsert, queries[: arguments.queries // 4])
    report["float16"] = half(arguments, folder, model, queries, truth)
    # Kilobytes on Linux, bytes on macOS.
    report["peak_memory_maxrss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure search over N stored vectors.")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=576)
    parser.add_argument("--vectors", type=Path, help="real document vectors, an .npy file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder)), indent=2))


if __name__ == "__main__":
    main()

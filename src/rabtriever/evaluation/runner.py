"""Running systems over the queries of a split, and timing them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import rabtriever
from rabtriever.data.dataset import Dataset, sample
from rabtriever.data.records import Query
from rabtriever.errors import InputError
from rabtriever.evaluation.measures import measure
from rabtriever.evaluation.ranking import ranked
from rabtriever.evaluation.report import Report, SystemResult
from rabtriever.evaluation.systems import Preparable, System
from rabtriever.progress import Progress, default

__all__ = ["evaluate"]

_DEPTH = 10  # the deepest measure
_BATCH = 64
_PAIRWISE_BATCH = 8
_PACKAGES = ("torch", "transformers", "ir-measures", "bm25s", "sentence-transformers")


def evaluate(
    systems: Mapping[str, System],
    dataset: Dataset,
    split: str = "test",
    *,
    limit: int | None = None,
    teacher_limit: int | None = None,
    seed: int = 0,
    k: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Rank the corpus for the queries of a split by each system; measure, time and compare.

    Each system reads the corpus first (reported as ``prepare_s``), then answers one query to warm up, then all of
    them in batches. ``ms_per_query`` is the time of those batches divided by the number of queries: the cost of a
    query in steady use, not the latency of a single one. Queries without a relevant document are left out. Tied
    scores are ordered at random, the same way in every run.

    Args:
        systems: Name -> system. ``student`` and ``teacher`` are the two between which retention is reported.
        dataset: The dataset.
        split: The split.
        limit: Draw so many queries at random; all when left out.
        teacher_limit: Let systems that read every pair (``pairwise``) answer only so many, a part of the others'
            queries. Comparisons and retention always take the queries that both systems answered.
        seed: Of the draw and of the significance tests.
        k: How many documents each system returns for a query; at least 10.
        progress: Where the work reports itself.

    Raises:
        InputError: There is no system, no query, or ``k`` is too small.
        DataError: The dataset has no such split.

    Example:
        >>> from rabtriever.evaluation import Bm25System
        >>> report = evaluate({"bm25": Bm25System()}, Dataset.example(), limit=20)
        >>> sorted(report.to_dict()["systems"]["bm25"])[:6]
        ['MRR@10', 'R@1', 'R@3', 'R@5', 'description', 'hit@1']
    """
    if not systems:
        raise InputError("no system to evaluate", hint="give at least one")
    if k < _DEPTH:
        raise InputError(f"k must be at least {_DEPTH}, the depth of the measures, found {k}")
    judged = dataset.split(split)
    if not judged:
        raise InputError(f"no query of split {split!r} has a relevant document", hint="choose another split")
    drawn = sample(judged, limit, seed)
    # The same seed and the same queries to draw from: the smaller draw is a part of the larger one.
    few = drawn if teacher_limit is None or teacher_limit >= len(drawn) else sample(judged, teacher_limit, seed)
    results = {
        name: _run(name, system, dataset, split, few if _is_pairwise(system) else drawn, k, progress or default())
        for name, system in systems.items()
    }
    return Report(dataset.name, dataset.fingerprint, split, len(drawn), seed, results, _environment())


def _run(
    name: str, system: System, dataset: Dataset, split: str, queries: Sequence[Query], k: int, progress: Progress
) -> SystemResult:
    start = time.perf_counter()
    if isinstance(system, Preparable):
        system.prepare(dataset.corpus, progress)
    prepare_s = time.perf_counter() - start
    system.rank(queries[:1], dataset.corpus, k)  # warms up; loading and compiling are not the price of a query
    scores: dict[str, Mapping[str, float]] = {}
    batch = _PAIRWISE_BATCH if _is_pairwise(system) else _BATCH
    online_s = 0.0
    with progress.task(f"{name}: answering", total=len(queries), unit="queries") as task:
        for first in range(0, len(queries), batch):
            part = queries[first : first + batch]
            start = time.perf_counter()
            found = system.rank(part, dataset.corpus, k)
            online_s += time.perf_counter() - start
            scores.update(found)
            task.advance(len(part))
    rankings = {query.id: ranked(scores.get(query.id, {}), query.id)[:k] for query in queries}
    judgements = dataset.judgements(split)
    return SystemResult(
        description=system.name,
        per_query=measure({query.id: judgements[query.id] for query in queries}, rankings),
        ms_per_query=1000 * online_s / len(queries),
        prepare_s=prepare_s,
    )


def _is_pairwise(system: System) -> bool:
    return bool(getattr(system, "pairwise", False))


def _environment() -> dict[str, Any]:
    versions = {"rabtriever": rabtriever.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "machine": {"architecture": platform.machine(), "processors": os.cpu_count()},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }

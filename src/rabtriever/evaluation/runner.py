"""Running systems over the queries of a split, and timing them."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import rabtriever
from rabtriever.data.dataset import Dataset, sample
from rabtriever.data.records import Query
from rabtriever.errors import InputError
from rabtriever.evaluation.measures import MEASURES, measure
from rabtriever.evaluation.partial import PartialReport
from rabtriever.evaluation.ranking import ranked
from rabtriever.evaluation.report import Report, SystemResult
from rabtriever.evaluation.runs import Run, run_file, write_run
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
    partial: str | Path | None = None,
    runs: str | Path | None = None,
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
        partial: A file that keeps what systems that read every pair found, batch by batch; an evaluation that was
            interrupted goes on from there. It may be removed once the report is saved.
        runs: A folder for each system's best ``k`` documents, in TREC's format (``run_file`` says under which name).
            The partial file does not have them, so that every query is answered anew.

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
    about = {"data": dataset.fingerprint, "split": split, "k": k}
    kept = None if partial is None else PartialReport(partial, about)
    run = _Runner(dataset, split, k, progress or default(), kept, None if runs is None else Path(runs))
    results = {name: run(name, system, few if _is_pairwise(system) else drawn) for name, system in systems.items()}
    return Report(dataset.name, dataset.fingerprint, split, len(drawn), seed, results, _environment())


class _Runner:
    """Puts the queries of one split to one system after the other."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        k: int,
        progress: Progress,
        partial: PartialReport | None = None,
        runs: Path | None = None,
    ) -> None:
        self._dataset, self._split, self._k = dataset, split, k
        self._progress, self._partial, self._runs = progress, partial, runs
        self._judgements = dataset.judgements(split)

    def __call__(self, name: str, system: System, queries: Sequence[Query]) -> SystemResult:
        """Have a system answer the queries that no earlier, interrupted evaluation has answers of."""
        identity = _identity(system)
        partial = self._partial if identity and self._runs is None else None
        best: Run = {}
        known, online_s = ({}, 0.0) if partial is None else partial.answered(identity, [query.id for query in queries])
        per_query: dict[str, dict[str, float]] = {name: dict(known.get(name, {})) for name in MEASURES}
        left = [query for query in queries if query.id not in per_query[MEASURES[0]]]
        prepare_s = self._prepare(system, left)
        batch = _PAIRWISE_BATCH if _is_pairwise(system) else _BATCH
        with self._progress.task(f"{name}: answering", total=len(queries), unit="queries") as task:
            task.advance(len(queries) - len(left))
            for first in range(0, len(left), batch):
                part = left[first : first + batch]
                values, found, seconds = self._answer(system, part)
                best.update(found)
                for measured, row in values.items():
                    per_query[measured].update(row)
                online_s += seconds
                if partial is not None:
                    partial.add(identity, values, seconds)
                task.advance(len(part))
        if self._runs is not None:
            write_run(run_file(self._runs, name), best, name)
        return SystemResult(system.name, per_query, 1000 * online_s / len(queries), prepare_s)

    def _prepare(self, system: System, queries: Sequence[Query]) -> float:
        start = time.perf_counter()
        if queries and isinstance(system, Preparable):
            system.prepare(self._dataset.corpus, self._progress)
        seconds = time.perf_counter() - start
        if queries:  # warms up; loading and compiling are not the price of a query
            system.rank(queries[:1], self._dataset.corpus, self._k)
        return seconds

    def _answer(self, system: System, queries: Sequence[Query]) -> tuple[dict[str, dict[str, float]], Run, float]:
        """What is measured of each query, for a run its documents with their scores, and the seconds it took."""
        start = time.perf_counter()
        scores = system.rank(queries, self._dataset.corpus, self._k)
        seconds = time.perf_counter() - start
        rankings = {query.id: ranked(scores.get(query.id, {}), query.id)[: self._k] for query in queries}
        values = measure({query.id: self._judgements[query.id] for query in queries}, rankings)
        if self._runs is None:
            return values, {}, seconds
        return values, {id_: [(i, scores[id_][i]) for i in ranking] for id_, ranking in rankings.items()}, seconds


def _identity(system: System) -> str:
    """What tells a slow system's answers from another's; empty for those whose answers are not worth keeping."""
    return str(getattr(system, "identity", "")) if _is_pairwise(system) else ""


def _is_pairwise(system: System) -> bool:
    return bool(getattr(system, "pairwise", False))


def _accelerator() -> dict[str, str]:
    """The GPU that was there for the systems; times tell nothing without it."""
    torch = sys.modules.get("torch")  # what has not been loaded has computed nothing
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"accelerator": torch.cuda.get_device_name()}


def _environment() -> dict[str, Any]:
    versions = {"rabtriever": rabtriever.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "machine": {"architecture": platform.machine(), "processors": os.cpu_count(), **_accelerator()},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""The files in ``experiments/results`` as the reports read them, and what their systems are called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rabtriever.evaluation import paired_difference

__all__ = [
    "MAP",
    "NAMES",
    "SELECTED",
    "accelerator",
    "against",
    "averaged",
    "best",
    "is_trained_bi_encoder",
    "load",
    "longer",
    "means",
    "named",
    "reports",
    "seeds",
    "share_kept",
    "spread",
    "trainings",
]

NAMES = {
    "student": "**student** (folded)",
    "rerank": "student, then teacher",
    "teacher": "teacher",
    "untrained": "untrained teacher",
    "bm25": "BM25",
    "dense": "bi-encoder, same backbone",
    "dense:all-MiniLM-L6-v2": "all-MiniLM-L6-v2, off the shelf",
    "linear-head": "reranker with a linear head",
    "cosine": "cosine of the teacher's e_Q and e_D",
    "classifier": "classifier that sees all documents",
    "untrained-classifier": "the same, untrained",
}
"""System, or its kind, -> in the reports' words."""


MAP = "rank256"
"""In the names of results whose students have a document map (`predictor.rank`) and are otherwise alike."""
SELECTED = "'s best "
"""In the description of a system that reads only what another one has found."""
_BM25 = " (bm25s, English stop words)"


@cache
def load(path: Path) -> dict[str, Any]:
    """A results file, read once however many tables it is in."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def reports(results: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The datasets' results, of those that have any."""
    paths = {name: results / f"{name}.json" for name in names}
    return {name: load(path) for name, path in paths.items() if path.exists()}


def longer(results: Path, name: str) -> dict[str, Any] | None:
    """What longer trainings on a GPU reached on a dataset; None where there were none."""
    path = results / f"{name}-gpu.json"
    return load(path) if path.exists() else None


def seeds(results: Path, name: str) -> list[dict[str, Any]]:
    """What further students on a dataset's teacher reached, by other seeds."""
    return [load(path) for path in sorted(results.glob(f"{name}-seed*.json"))]


def trainings(results: Path, name: str) -> list[list[dict[str, Any]]]:
    """What was trained alike on a dataset, a list a teacher: the first with all its students, then others by seed."""
    first = [*reports(results, [name]).values(), *seeds(results, name)]
    others = [[load(path)] for path in sorted(results.glob(f"{name}-teacher*.json"))]
    return [group for group in (first, *others) if group]


def means(system: str, groups: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, float]]:
    """A system's R@1, MRR and time of a query for each teacher: the mean over its seeds, of those that have it."""
    found = ([report["systems"][system] for report in group if system in report["systems"]] for group in groups)
    keys = ("R@1", "MRR@10", "ms_per_query", "queries")
    return [{key: mean(one[key] for one in of) for key in keys} for of in found if of]


def averaged(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Query -> the mean of several systems' values, of the queries that all of them have answered."""
    common = set(several[0]).intersection(*several)
    return {query: mean(one[query] for one in several) for query in several[0] if query in common}


def share_kept(student: Mapping[str, float], teacher: Mapping[str, float]) -> float:
    """The share of a teacher's figure that its student has, on the queries that the teacher answered."""
    return mean(student[query] for query in teacher) / mean(teacher.values())


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; of a single value itself."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def accelerator(report: dict[str, Any]) -> str:
    """What a report was measured with beside processors, if anything."""
    return str(report.get("machine", {}).get("accelerator", ""))


def named(system: str, figures: dict[str, Any]) -> str:
    """In the report's words; those that read a part of the corpus tell which."""
    described = str(figures["description"])
    kind = system.partition(":")[0]
    if kind == "hybrid":
        return described.replace(_BM25, "")
    if SELECTED in described or system in NAMES:
        return described if SELECTED in described else NAMES[system]
    if kind == "dense":  # trained here: the folder's name tells how, and ends with its learning rate
        how = [word for word in ("prompted", "swapped") if word in system]
        rates = [f"rate {rate}" for rate in re.findall(r"-(0\.\d+)$", system)]
        return ", ".join((NAMES[kind], *how, *rates))
    of = f", {Path(system.partition(':')[2]).name}" if kind in ("student", "teacher") else ""
    return NAMES[kind] + of


def is_trained_bi_encoder(system: str, prompted: bool = False) -> bool:
    """Whether a system is a bi-encoder that was trained here, behind a prompt or an end token; none off the shelf."""
    return system.startswith("dense:") and system not in NAMES and ("prompted" in system) == prompted


def best(report: dict[str, Any], belongs: Callable[[str], bool]) -> str | None:
    """Of a report's systems that belong together the one with the highest MRR; None where there is none."""
    systems = [system for system in report["systems"] if belongs(system)]
    return max(systems, key=lambda system: report["systems"][system]["MRR@10"], default=None)


def against(one: dict[str, float], other: dict[str, float]) -> str:
    """The mean difference of two systems' values, with its interval and p-value."""
    found = paired_difference(one, other)
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}, p = {found.p:.4f})"

"""The files in ``experiments/results`` as the reports read them, and what their systems are called."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from rabtriever.evaluation import paired_difference

__all__ = ["NAMES", "against", "load", "seeds"]

NAMES = {
    "student": "**student** (folded)",
    "rerank": "student, then teacher",
    "teacher": "teacher",
    "untrained": "untrained teacher",
    "bm25": "BM25",
    "dense": "bi-encoder, same backbone",
    "dense:all-MiniLM-L6-v2": "all-MiniLM-L6-v2, off the shelf",
    "linear-head": "reranker with a linear head",
    "classifier": "classifier that sees all documents",
    "untrained-classifier": "the same, untrained",
}
"""System, or its kind, -> in the reports' words."""


@cache
def load(path: Path) -> dict[str, Any]:
    """A results file, read once however many tables it is in."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def seeds(results: Path, name: str) -> list[dict[str, Any]]:
    """What further students on a dataset's teacher reached, by other seeds."""
    return [load(path) for path in sorted(results.glob(f"{name}-seed*.json"))]


def against(one: dict[str, float], other: dict[str, float]) -> str:
    """The mean difference of two systems' values, with its interval and p-value."""
    found = paired_difference(one, other)
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}, p = {found.p:.4f})"

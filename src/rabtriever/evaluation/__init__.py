"""Evaluation: field-standard measures, baselines, time per query and paired significance tests, in one run.

The names below are imported when first used, so that importing this package loads neither numpy nor ir-measures.

Example:
    >>> import rabtriever.evaluation
    >>> "evaluate" in dir(rabtriever.evaluation)
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rabtriever.evaluation.hybrid import HybridSystem
    from rabtriever.evaluation.measures import MEASURES
    from rabtriever.evaluation.report import Report, SystemResult
    from rabtriever.evaluation.runner import evaluate
    from rabtriever.evaluation.runs import run_file, write_run
    from rabtriever.evaluation.significance import Difference, paired_difference
    from rabtriever.evaluation.stored import join_reports, load_report
    from rabtriever.evaluation.systems import (
        Bm25System,
        DenseSystem,
        Preparable,
        StudentSystem,
        System,
        TeacherSystem,
    )

__all__ = [
    "MEASURES",
    "Bm25System",
    "DenseSystem",
    "Difference",
    "HybridSystem",
    "Preparable",
    "Report",
    "StudentSystem",
    "System",
    "SystemResult",
    "TeacherSystem",
    "evaluate",
    "join_reports",
    "load_report",
    "paired_difference",
    "run_file",
    "write_run",
]

# Public name -> the submodule that defines it; no name is also a submodule.
_LAZY = {
    "MEASURES": "measures",
    "Bm25System": "systems",
    "DenseSystem": "systems",
    "Difference": "significance",
    "HybridSystem": "hybrid",
    "Preparable": "systems",
    "Report": "report",
    "StudentSystem": "systems",
    "System": "systems",
    "SystemResult": "report",
    "TeacherSystem": "systems",
    "evaluate": "runner",
    "join_reports": "stored",
    "load_report": "stored",
    "paired_difference": "significance",
    "run_file": "runs",
    "write_run": "runs",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value  # the next access costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

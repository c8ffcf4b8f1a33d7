"""What an evaluation found: means and per-query values, time, and the differences that matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.errors import InputError
from rabtriever.evaluation.measures import MEASURES
from rabtriever.evaluation.significance import Difference, paired_difference
from rabtriever.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["COMPARED", "Report", "SystemResult"]

COMPARED = ("R@1", "MRR@10", "nDCG@10")
"""The measures that are tested for significance."""

_STUDENT, _TEACHER = "student", "teacher"


@dataclass(frozen=True)
class SystemResult:
    """What one system reached.

    Args:
        description: What the system is.
        per_query: Measure -> query id -> value.
        ms_per_query: Online time of all queries together, divided by their number, in milliseconds.
        prepare_s: Seconds for reading the corpus beforehand.
    """

    description: str
    per_query: Mapping[str, Mapping[str, float]]
    ms_per_query: float
    prepare_s: float

    @property
    def queries(self) -> set[str]:
        """The ids of the queries it answered."""
        return set(next(iter(self.per_query.values()), ()))

    def mean(self, measure: str, queries: set[str] | None = None) -> float:
        """The mean of a measure over the given queries, or over all it answered.

        Raises:
            InputError: There is no such query.
        """
        values = [v for q, v in self.per_query[measure].items() if queries is None or q in queries]
        if not values:
            raise InputError(f"no query to take the mean of {measure} over")
        return sum(values) / len(values)


@dataclass(frozen=True)
class Report:
    """The result of :func:`rabtriever.evaluate`.

    Args:
        dataset: The dataset's name.
        fingerprint: The dataset's content hash.
        split: The split.
        queries: How many queries were drawn from it.
        seed: Of the draw and of the resampling.
        systems: Name -> what it reached.
        environment: Versions, processors and time, for the record.

    Example:
        >>> values = {name: {"q1": 1.0} for name in MEASURES}
        >>> report = Report("toy", "0f", "test", 1, 0, {"bm25": SystemResult("BM25", values, 0.2, 0.0)})
        >>> report.to_dict()["systems"]["bm25"]["R@1"]
        1.0
    """

    dataset: str
    fingerprint: str
    split: str
    queries: int
    seed: int
    systems: Mapping[str, SystemResult]
    environment: Mapping[str, Any] | None = None

    @cached_property
    def comparisons(self) -> list[tuple[str, str, str, Difference]]:
        """(first system, second system, measure, difference) of every two systems on the queries both answered."""
        return [
            (a, b, measure, paired_difference(first.per_query[measure], second.per_query[measure], seed=self.seed))
            for (a, first), (b, second) in combinations(self.systems.items(), 2)
            for measure in COMPARED
        ]

    @property
    def retention(self) -> dict[str, Any] | None:
        """The student's share of the teacher's figures on the queries both answered; ``None`` unless both are there.

        A share is ``None`` where the teacher's figure is 0.
        """
        if _STUDENT not in self.systems or _TEACHER not in self.systems:
            return None
        student, teacher = self.systems[_STUDENT], self.systems[_TEACHER]
        shared = student.queries & teacher.queries
        shares: dict[str, Any] = {"queries": len(shared)}
        for measure in MEASURES:
            reached = teacher.mean(measure, shared)
            shares[measure] = student.mean(measure, shared) / reached if reached else None
        return shares

    def to_dict(self, per_query: bool = False) -> dict[str, Any]:
        """Return everything as plain JSON values.

        Args:
            per_query: Whether the values of every single query are included.
        """
        result: dict[str, Any] = {
            "dataset": self.dataset,
            "split": self.split,
            "queries": self.queries,
            "systems": {
                name: {measure: system.mean(measure) for measure in MEASURES}
                | {
                    "ms_per_query": system.ms_per_query,
                    "prepare_s": system.prepare_s,
                    "queries": len(system.queries),
                    "description": system.description,
                }
                for name, system in self.systems.items()
            },
            "comparisons": [
                {"a": a, "b": b, "measure": measure} | asdict(difference)
                for a, b, measure, difference in self.comparisons
            ],
        }
        if self.retention is not None:
            result["retention"] = self.retention
        result |= {"fingerprint": self.fingerprint, "seed": self.seed, **(self.environment or {})}
        if per_query:
            result["per_query"] = {
                name: {measure: dict(values) for measure, values in system.per_query.items()}
                for name, system in self.systems.items()
            }
        return result

    def save(self, path: str | Path) -> None:
        """Write everything, per-query values included, as one JSON file.

        Raises:
            InputError: The file cannot be written.
        """
        write_json(path, self.to_dict(per_query=True))

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the column names and one row of text for each system."""
        columns = ["system", *MEASURES, "ms/query", "prepare", "queries"]
        rows = [
            [
                name,
                *(f"{system.mean(measure):.3f}" for measure in MEASURES),
                f"{system.ms_per_query:.1f}",
                f"{system.prepare_s:.1f} s",
                str(len(system.queries)),
            ]
            for name, system in self.systems.items()
        ]
        return columns, rows

    def comparison_rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the column names and one row of text for each comparison."""
        columns = ["systems", "measure", "queries", "difference", "95 % interval", "p"]
        rows = [
            [
                f"{a} - {b}",
                measure,
                str(d.queries),
                f"{d.difference:+.3f}",
                f"{d.low:+.3f} to {d.high:+.3f}",
                f"{d.p:.4f}",
            ]
            for a, b, measure, d in self.comparisons
        ]
        return columns, rows

    def table(self) -> Table:
        """Return the systems as a rich table, for a terminal or a notebook."""
        from rich.table import Table
        from rich.text import Text

        columns, rows = self.rows()
        table = Table(title=Text(f"{self.dataset}, split {self.split}, {self.queries} queries"))
        for position, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if position else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        return table

"""What an evaluation found so far, kept in a file: a teacher's answers take minutes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rabtriever.errors import DataError
from rabtriever.files import read_json, write_json

__all__ = ["PartialReport"]

PerQuery = dict[str, dict[str, float]]
"""Measure -> query id -> value."""


class PartialReport:
    """The values of each query that slow systems have answered, by system.

    Args:
        path: The file; what it says of another question (below) is not used, and is lost with the first answer.
        about: What the values depend on besides the system: data, split, depth.

    Raises:
        DataError: The file is there and is something else.

    Example:
        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp()) / "report.json.partial"
        >>> PartialReport(file, {"split": "test"}).add("teacher 0f", {"MRR@10": {"q1": 1.0}}, seconds=70.0)
        >>> PartialReport(file, {"split": "test"}).answered("teacher 0f", ["q1", "q2"])
        ({'MRR@10': {'q1': 1.0}}, 70.0)
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any]) -> None:
        self.path, self._about = Path(path), dict(about)
        self._systems: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            found = read_json(self.path)
            if not isinstance(found, dict) or not isinstance(found.get("systems"), dict) or "about" not in found:
                raise DataError(f"{path} is no partial report", hint="move it away, or name another output")
            if found["about"] == self._about:
                self._systems = found["systems"]

    def answered(self, system: str, queries: Sequence[str]) -> tuple[PerQuery, float]:
        """What is known of a system on some queries, and the seconds that it took over them."""
        kept = self._systems.get(system, {"seconds": {}, "per_query": {}})
        wanted = set(queries)
        values = {
            measure: {query: value for query, value in row.items() if query in wanted}
            for measure, row in kept["per_query"].items()
        }
        return values, sum(seconds for query, seconds in kept["seconds"].items() if query in wanted)

    def add(self, system: str, per_query: Mapping[str, Mapping[str, float]], seconds: float) -> None:
        """Keep what a system found for some queries, which took it so many seconds together."""
        kept = self._systems.setdefault(system, {"seconds": {}, "per_query": {}})
        for measure, row in per_query.items():
            kept["per_query"].setdefault(measure, {}).update(row)
        queries = next(iter(per_query.values()), {})
        kept["seconds"].update(dict.fromkeys(queries, seconds / max(1, len(queries))))
        write_json(self.path, {"about": self._about, "systems": self._systems})

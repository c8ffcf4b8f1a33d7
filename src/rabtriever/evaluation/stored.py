"""Reports read back from their files, and joined: what took hours need not be measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.errors import DataError, InputError
from rabtriever.evaluation.report import Report, SystemResult
from rabtriever.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_joinable", "join_reports", "load_report"]


def load_report(path: str | Path) -> Report:
    """Read what :meth:`Report.save` wrote.

    Raises:
        InputError: The file cannot be read.
        DataError: It is no report, or one without the values of every query.

    Example:
        >>> report = load_report("report.json")           # doctest: +SKIP
    """
    content = read_json(path)
    try:
        systems = {
            name: SystemResult(
                description=str(figures["description"]),
                per_query=_per_query(content["per_query"][name]),
                ms_per_query=float(figures["ms_per_query"]),
                prepare_s=float(figures["prepare_s"]),
            )
            for name, figures in content["systems"].items()
        }
        known = {key: content[key] for key in ("versions", "machine", "time") if key in content}
        return Report(
            str(content["dataset"]),
            str(content["fingerprint"]),
            str(content["split"]),
            int(content["queries"]),
            int(content["seed"]),
            systems,
            known,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is not a report with the values of every query ({type(error).__name__}: {error})",
            hint="give a file that `rabtriever evaluate -o FILE` wrote",
        ) from error


def check_joinable(earlier: Report, fingerprint: str, split: str, seed: int) -> None:
    """Refuse an earlier report that a new one cannot be joined with.

    Raises:
        InputError: It is about other data, another split or another seed.

    Example:
        >>> check_joinable(Report("toy", "0f", "test", 1, 0, {}), "0f", "test", 0)
    """
    for name, theirs, ours in (
        ("data", earlier.fingerprint, fingerprint),
        ("split", earlier.split, split),
        ("seed", earlier.seed, seed),
    ):
        if theirs != ours:
            raise InputError(
                f"the earlier report is about another {name}: {theirs}, here it is {ours}",
                hint="join reports of one dataset, split and seed only",
            )


def join_reports(report: Report, earlier: Report) -> Report:
    """Add to a report the systems of an earlier one that it does not have; differences are then taken over all of them.

    Args:
        report: Its systems stand first, and its versions and time are kept.
        earlier: Of the same data, split and seed.

    Raises:
        InputError: The two are about other data, splits or seeds, or answered no query in common.

    Example:
        >>> from rabtriever.evaluation.measures import MEASURES
        >>> values = {name: {"q1": 1.0} for name in MEASURES}
        >>> new, old = (
        ...     Report("toy", "0f", "test", 1, 0, {name: SystemResult(name, values, 0.2, 0.0)})
        ...     for name in ("student", "teacher")
        ... )
        >>> list(join_reports(new, old).systems)
        ['student', 'teacher']
    """
    check_joinable(earlier, report.fingerprint, report.split, report.seed)
    answered = set[str]().union(*(system.queries for system in report.systems.values()))
    apart = [name for name, system in earlier.systems.items() if not system.queries & answered]
    if apart:
        raise InputError(
            f"the earlier report's {apart[0]} answered none of the queries answered here",
            hint="draw the same queries: give the same --limit and --seed",
        )
    others = {name: system for name, system in earlier.systems.items() if name not in report.systems}
    return replace(report, systems={**report.systems, **others})


def _per_query(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {measure: {query: float(v) for query, v in row.items()} for measure, row in values.items()}

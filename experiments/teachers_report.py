"""One setting and several teachers by seed: what each and its student reach, and what their means differ by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from stored_results import (
    MAP,
    NAMES,
    accelerator,
    against,
    averaged,
    is_trained_bi_encoder,
    means,
    named,
    share_kept,
    spread,
    trainings,
)

__all__ = ["several_teachers"]

MEASURES = ("R@1", "MRR@10")
_Values = dict[str, dict[str, float]]
"""Measure -> query -> value."""


def several_teachers(name: str, results: Path) -> list[str]:
    """A row a teacher, with the mean of its students, and the differences of their means; nothing for a single one."""
    groups = trainings(results, name)
    if len(groups) == 1:
        return []
    mapped = trainings(results, f"{name}-{MAP}")
    mapped = mapped if len(mapped) == len(groups) else []
    columns = {"teacher": means("teacher", groups), "student": means("student", groups)}
    if mapped:
        columns["student with a document map"] = means("student", mapped)
    kept = [share_kept(_pooled("student", [group])["R@1"], _pooled("teacher", [group])["R@1"]) for group in groups]
    titles = ["trained on", *(f"{title}, {measure}" for title in columns for measure in MEASURES), "student's R@1 kept"]
    lines = [
        f"### {name}, several teachers",
        "",
        f"{len(groups)} teachers by seed, the first one above; of several students on one their mean"
        f"{_counts(groups, mapped)}. Below them mean and standard deviation over the teachers.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
    ]
    for place, group in enumerate(groups):
        cells = [_cell(of[place], measure, group[0]["queries"]) for of in columns.values() for measure in MEASURES]
        lines.append(f"| {accelerator(group[0]) or 'processors'} | {' | '.join(cells)} | {100 * kept[place]:.0f} % |")
    cells = [spread([one[measure] for one in of]) for of in columns.values() for measure in MEASURES]
    lines.append(f"| mean | {' | '.join(cells)} | {100 * mean(kept):.0f} % |")
    return [*lines, "", *_differences(groups, mapped), ""]


def _counts(groups: Sequence[Sequence[Any]], mapped: Sequence[Sequence[Any]]) -> str:
    said = f" (students: {', '.join(str(len(group)) for group in groups)}"
    return said + (f"; with a document map: {', '.join(str(len(group)) for group in mapped)})" if mapped else ")")


def _cell(figures: dict[str, float], measure: str, queries: int) -> str:
    answered = figures["queries"]
    return f"{figures[measure]:.3f}" + (f" ({answered:,.0f})" if answered != queries else "")


def _differences(groups: Sequence[Sequence[dict[str, Any]]], mapped: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """The students' mean over all teachers against the teachers' and against what was trained without any."""
    student, main = _pooled("student", groups), groups[0][0]
    others = {NAMES["teacher"]: _pooled("teacher", groups)}
    for system, figures in main["systems"].items():
        trained = any(is_trained_bi_encoder(system, prompted) for prompted in (False, True))
        if trained and figures["queries"] == main["queries"]:
            others[named(system, figures)] = _pooled(system, [[main]])
    compared = {"student": (student, others)}
    if mapped:
        with_map = {NAMES["student"] + ", no document map": student} | others
        compared["student with a document map"] = (_pooled("student", mapped), with_map)
    lines = ["| mean over the teachers | against | R@1 | MRR@10 |", "|---|---|---|---|"]
    for title, (one, against_these) in compared.items():
        for other, values in against_these.items():
            cells = (against(one[measure], values[measure]) for measure in MEASURES)
            lines.append(f"| {title} | {other} | {' | '.join(cells)} |")
    return lines


def _pooled(system: str, groups: Sequence[Sequence[dict[str, Any]]]) -> _Values:
    """Of each query that all have answered the mean over the teachers, of which each counts once."""
    found = [[one["per_query"][system] for one in group if system in one["per_query"]] for group in groups]
    return {measure: averaged([averaged([one[measure] for one in of]) for of in found]) for measure in MEASURES}

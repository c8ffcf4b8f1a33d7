"""One setting and several teachers by seed: what each and its student reach, and what their means differ by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from stored_results import MAP, NAMES, accelerator, against, is_trained_bi_encoder, means, trainings

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
    kept = [_kept(group) for group in groups]
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
    cells = [_spread([one[measure] for one in of]) for of in columns.values() for measure in MEASURES]
    lines.append(f"| mean | {' | '.join(cells)} | {100 * mean(kept):.0f} % |")
    return [*lines, "", *_differences(groups, mapped), ""]


def _counts(groups: Sequence[Sequence[Any]], mapped: Sequence[Sequence[Any]]) -> str:
    said = f" (students: {', '.join(str(len(group)) for group in groups)}"
    return said + (f"; with a document map: {', '.join(str(len(group)) for group in mapped)})" if mapped else ")")


def _cell(figures: dict[str, float], measure: str, queries: int) -> str:
    answered = figures["queries"]
    return f"{figures[measure]:.3f}" + (f" ({answered:,.0f})" if answered != queries else "")


def _kept(group: Sequence[dict[str, Any]]) -> float:
    """The share of a teacher's R@1 that its students have, on the queries that the teacher answered."""
    teacher, student = (_pooled(system, [group])["R@1"] for system in ("teacher", "student"))
    return mean(student[query] for query in teacher) / mean(teacher.values())


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _differences(groups: Sequence[Sequence[dict[str, Any]]], mapped: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """The students' mean over all teachers against the teachers' and against what was trained without any."""
    student, main = _pooled("student", groups), groups[0][0]
    others = {NAMES["teacher"]: _pooled("teacher", groups)}
    for system, figures in main["systems"].items():
        if is_trained_bi_encoder(system) or is_trained_bi_encoder(system, prompted=True):
            title = NAMES["dense"] + (", prompted" if "prompted" in system else "")
            others[title] = _pooled(system, [[main]]) if figures["queries"] == main["queries"] else {}
    compared = {"student": (student, others)}
    if mapped:
        with_map = {NAMES["student"] + ", no document map": student} | others
        compared["student with a document map"] = (_pooled("student", mapped), with_map)
    lines = ["| mean over the teachers | against | R@1 | MRR@10 |", "|---|---|---|---|"]
    for title, (one, against_these) in compared.items():
        for other, values in against_these.items():
            if values:
                cells = (against(one[measure], values[measure]) for measure in MEASURES)
                lines.append(f"| {title} | {other} | {' | '.join(cells)} |")
    return lines


def _pooled(system: str, groups: Sequence[Sequence[dict[str, Any]]]) -> _Values:
    """Of each query that all have answered the mean over the teachers, of which each counts once."""
    pooled: _Values = {}
    for measure in MEASURES:
        by_teacher = []
        for group in groups:
            found = [one["per_query"][system][measure] for one in group if system in one["per_query"]]
            by_teacher.append({query: mean(one[query] for one in found) for query in found[0]})
        common = set(by_teacher[0]).intersection(*by_teacher)
        pooled[measure] = {query: mean(one[query] for one in by_teacher) for query in sorted(common)}
    return pooled

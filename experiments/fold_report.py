"""A small dataset cross-validated: the test queries of every part as one, each answered by the models of its part."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from stored_results import NAMES, against, best, is_trained_bi_encoder, load, share_kept

__all__ = ["cross_validated"]

MEASURES = ("R@1", "R@3", "R@5", "MRR@10")
_PAIR = ("student", "teacher")


def cross_validated(name: str, results: Path) -> list[str]:
    """One row a system that every part has; differences from the student are over tasks, whose queries go together."""
    parts = [results / f"{name}.json", *sorted(results.glob(f"{name}-fold*.json"))]
    if len(parts) == 1:
        return []
    reports = [load(path) for path in parts]
    common = set(NAMES).intersection(*(one["systems"] for one in reports))
    student, teacher = ({m: _pooled(reports, _everywhere(reports, kind), m) for m in MEASURES} for kind in _PAIR)
    counts, tasks = ", ".join(str(one["queries"]) for one in reports), len(_by_task(student["R@1"]))
    lines = [
        f"## {name}, cross-validated by instruction",
        "",
        f"{len(reports)} parts of {counts} test queries, {tasks} instructions in all; part 0 is "
        "the table above (the first seed of its student), each other one has its own teacher and student (`folds.py`). "
        "Differences are means over instructions, each of which counts once: its queries are not independent.",
        "",
        f"| system | {' | '.join(MEASURES)} | R@1 by part | student's R@1 less its | student's MRR less its |",
        "|---" * (len(MEASURES) + 4) + "|",
    ]
    for system in reports[0]["systems"]:
        if system in common:
            lines.append(_row(NAMES[system], reports, _everywhere(reports, system), student))
    trained = {part: best(report, is_trained_bi_encoder) for part, report in enumerate(reports)}
    if found := {part: system for part, system in trained.items() if system is not None}:
        of = f" (part{'s' * (len(found) > 1)} {', '.join(map(str, found))})"
        lines.append(_row(NAMES["dense"] + of, reports, found, student))
    r1, mrr = (100 * share_kept(student[m], teacher[m]) for m in ("R@1", "MRR@10"))
    return [*lines, "", f"The student keeps {r1:.0f} % of its teacher's R@1 and {mrr:.0f} % of its MRR@10.", ""]


def _everywhere(reports: list[dict[str, Any]], system: str) -> dict[int, str]:
    return dict.fromkeys(range(len(reports)), system)


def _row(
    title: str, reports: list[dict[str, Any]], systems: dict[int, str], student: dict[str, dict[str, float]]
) -> str:
    """A row of the table: of each part the system named for it, beside the student on the same queries."""
    pooled = {measure: _pooled(reports, systems, measure) for measure in MEASURES}
    cells = [f"{mean(pooled[measure].values()):.3f}" for measure in MEASURES]
    cells.append(", ".join(f"{reports[part]['systems'][system]['R@1']:.3f}" for part, system in systems.items()))
    for measure in ("R@1", "MRR@10"):
        itself = set(systems.values()) == {"student"}
        cells.append("" if itself else against(_by_task(student[measure]), _by_task(pooled[measure])))
    return f"| {title} | {' | '.join(cells)} |"


def _pooled(reports: list[dict[str, Any]], systems: dict[int, str], measure: str) -> dict[str, float]:
    """Query -> value, of all parts that a system is named for; one that all of their queries have to have."""
    found: dict[str, float] = {}
    for part, system in systems.items():
        report = reports[part]
        values = report["per_query"][system][measure]
        if len(values) < report["queries"]:
            raise SystemExit(f"{report['dataset']}: {system} has answered {len(values)} of {report['queries']} queries")
        if found.keys() & values.keys():
            raise SystemExit(f"{report['dataset']}: a test query of it is in another part as well")
        found |= values
    return found


def _by_task(values: dict[str, float]) -> dict[str, float]:
    """Instruction -> mean over its queries, whose ids are its own and the number of the step."""
    found: dict[str, list[float]] = {}
    for query, value in values.items():
        found.setdefault(query.rpartition("-")[0], []).append(value)
    return {task: mean(of_task) for task, of_task in found.items()}

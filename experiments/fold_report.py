"""A small dataset cross-validated: the test queries of every part as one, each answered by the models of its part."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from stored_results import NAMES, against, load

__all__ = ["cross_validated"]

MEASURES = ("R@1", "R@3", "R@5", "MRR@10")


def cross_validated(name: str, results: Path) -> list[str]:
    """One row a system that every part has; differences from the student are over tasks, whose queries go together."""
    parts = [results / f"{name}.json", *sorted(results.glob(f"{name}-fold*.json"))]
    if len(parts) == 1:
        return []
    reports = [load(path) for path in parts]
    common = set(NAMES).intersection(*(one["systems"] for one in reports))
    systems = [system for system in reports[0]["systems"] if system in common]
    pooled = {system: {m: _pooled(reports, system, m) for m in MEASURES} for system in systems}
    student = pooled["student"]
    tasks = _by_task(student["R@1"])
    counts = ", ".join(str(one["queries"]) for one in reports)
    lines = [
        f"## {name}, cross-validated by instruction",
        "",
        f"{len(reports)} parts of {counts} test queries, {len(tasks)} instructions in all; part 0 is the table "
        "above (the first seed of its student), each other one has its own teacher and student (`folds.py`). "
        "Differences are means over instructions, each of which counts once: its queries are not independent.",
        "",
        f"| system | {' | '.join(MEASURES)} | R@1 by part | student's R@1 less its | student's MRR less its |",
        "|---" * (len(MEASURES) + 4) + "|",
    ]
    for system in systems:
        cells = [f"{mean(pooled[system][measure].values()):.3f}" for measure in MEASURES]
        cells.append(", ".join(f"{one['systems'][system]['R@1']:.3f}" for one in reports))
        for measure in ("R@1", "MRR@10"):
            cells.append(
                "" if system == "student" else against(_by_task(student[measure]), _by_task(pooled[system][measure]))
            )
        lines.append(f"| {NAMES[system]} | {' | '.join(cells)} |")
    lines += _bi_encoder(reports, student)
    r1, mrr = (100 * mean(student[m].values()) / mean(pooled["teacher"][m].values()) for m in ("R@1", "MRR@10"))
    return [*lines, "", f"The student keeps {r1:.0f} % of its teacher's R@1 and {mrr:.0f} % of its MRR@10.", ""]


def _bi_encoder(reports: list[dict[str, Any]], student: dict[str, dict[str, float]]) -> list[str]:
    """A row for the bi-encoders on the same backbone, the best of each part that has one."""
    found: dict[int, str] = {}
    for part, report in enumerate(reports):
        trained = [system for system in report["systems"] if system.startswith("dense:") and system not in NAMES]
        if trained:
            found[part] = max(trained, key=lambda system: report["systems"][system]["MRR@10"])
    if not found:
        return []
    values: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
    for part, system in found.items():
        for measure in MEASURES:
            values[measure] |= reports[part]["per_query"][system][measure]
    cells = [f"{mean(values[measure].values()):.3f}" for measure in MEASURES]
    cells.append(", ".join(f"{reports[part]['systems'][system]['R@1']:.3f}" for part, system in found.items()))
    cells += [against(_by_task(student[m]), _by_task(values[m])) for m in ("R@1", "MRR@10")]
    of = ", ".join(map(str, found))
    return [f"| {NAMES['dense']} (part{'s' * (len(found) > 1)} {of}) | {' | '.join(cells)} |"]


def _pooled(reports: list[dict[str, Any]], system: str, measure: str) -> dict[str, float]:
    """Query -> value, of all parts; one that all parts' queries have to have."""
    found: dict[str, float] = {}
    for report in reports:
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

"""All systems on the datasets that need reasoning, side by side: the paper's Table 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from stored_results import MAP, NAMES, best, is_trained_bi_encoder, load, longer, means, reports, trainings

__all__ = ["APART", "DATASETS", "PAPER", "ROWS", "apart", "rationale"]

DATASETS = ("esconv", "saycan", "alfred")


def _is(system: str) -> Callable[[str], bool]:
    return lambda found: found == system


ROWS: dict[str, Callable[[str], bool]] = {
    **{NAMES[system]: _is(system) for system in ("bm25", "dense:all-MiniLM-L6-v2")},
    NAMES["dense"]: is_trained_bi_encoder,
    "the same, prompted": partial(is_trained_bi_encoder, prompted=True),
    **{NAMES[system]: _is(system) for system in ("classifier", "untrained", "linear-head", "teacher", "student")},
}
PAPER = {
    "esconv": {"best bi-encoder": (29.0, 45.5), "student": (32.8, 54.7), "teacher": (34.4, 54.8)},
    "saycan": {"best bi-encoder": (44.2, 56.8), "student": (67.3, 73.7), "teacher": (71.2, 79.8)},
}
"""R@1 and MRR in percent, of a 7B model (arXiv 2604.23336)."""

APART = "{}, next-text words, trained to read apart"
"""What a system of such a training is called."""

_AS_OURS = {"best bi-encoder": "dense"}


def rationale(results: Path) -> list[str]:
    """One row a system, one column a dataset, the paper's figures beside those that it has."""
    found = reports(results, DATASETS)
    columns = [title for name in found for title in ([name, f"{name}, the paper"] if name in PAPER else [name])]
    lines = [
        "## Retrieval that needs reasoning: all systems",
        "",
        "R@1 / MRR@10 in percent over the whole corpus, as in the paper's Table 2 (7B; its best bi-encoder); in "
        "brackets of how many queries, if not of all. Of several trainings the one that read more counts, of several "
        "baselines the best; of several teachers by seed, with their students, the mean. Tables with further "
        "measures and intervals follow by dataset.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for title, belongs in ROWS.items():
        cells = []
        for name, report in found.items():
            cells.append(_cell(report, belongs, results, name))
            if name in PAPER:
                theirs = {NAMES[_AS_OURS.get(system, system)]: figures for system, figures in PAPER[name].items()}
                cells.append(" / ".join(map(str, theirs.get(title, ()))))
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
        if title == NAMES["teacher"]:
            lines += _otherwise("teacher, by DPO", "teacher", {name: _by_dpo(name, results) for name in found})
        if system := {NAMES[system]: system for system in ("teacher", "student")}.get(title):
            lines += _otherwise(APART.format(title), system, {name: apart(name, results) for name in found})
            mapped = {name: trainings(results, f"{name}-next-{MAP}") for name in found}
            lines += _otherwise(f"{APART.format(title)}, document map", system, mapped)
    return [*lines, ""]


_Trained = Sequence[Sequence[dict[str, Any]]]
"""The reports of each teacher and its students."""


def _by_dpo(name: str, results: Path) -> _Trained:
    """What teachers by DPO and their students reached, by all seeds."""
    return [[load(path)] for path in sorted(results.glob(f"{name}-dpo*.json"))]


def apart(name: str, results: Path) -> _Trained:
    """What teachers that read apart too and all their students reached."""
    return trainings(results, f"{name}-next")


def _otherwise(title: str, system: str, trained: Mapping[str, _Trained]) -> list[str]:
    """A row of what was trained otherwise, by dataset, the mean over those that have the system."""
    cells = []
    for name, of in trained.items():
        found = means(system, of)
        cells += [_percent(found, of[0][0]["queries"]) if found else ""] + [""] * (name in PAPER)
    return [f"| {title} | {' | '.join(cells)} |"] if any(cells) else []


def _percent(found: Sequence[Mapping[str, float]], queries: int) -> str:
    """R@1 / MRR, means over the teachers; in brackets of how many queries, if not of all."""
    figures = " / ".join(f"{100 * mean(one[measure] for one in found):.1f}" for measure in ("R@1", "MRR@10"))
    answered = found[0]["queries"]
    return figures if answered == queries else f"{figures} ({answered:,})"


def _cell(report: dict[str, Any], belongs: Callable[[str], bool], results: Path, name: str) -> str:
    """The best of the systems that belong to a row, which is to a baseline's good; of ours the mean over all seeds."""
    more = (longer(results, name) or {"systems": {}})["systems"]
    prompted = {
        system: figures
        for group in apart(name, results)
        for one in group
        for system, figures in one["systems"].items()
        if is_trained_bi_encoder(system, prompted=True)
    }
    report = {**report, "systems": {**report["systems"], **more, **prompted}}
    system = best(report, belongs)
    if system is None:
        return ""
    ours = system in ("teacher", "student") and system not in more
    found = means(system, trainings(results, name)) if ours else [report["systems"][system]]
    return _percent(found, report["queries"])

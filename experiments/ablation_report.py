"""The tables of ``ablations.py`` and ``taps.py``: what each change does, on test, against its group's reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from ablation_variants import GROUPS
from stored_results import spread

from rabtriever.evaluation import Difference, paired_difference

__all__ = ["DIRECTIONS", "LOSSES", "ablations", "compared", "directions", "hit", "mrr", "taps", "varied"]

PAPER = {
    "no multiplication": 9.6,
    "no MSE": 23.1,
    "no KL": 21.2,
    "forward KL": 46.8,
    "forward divergences": 46.8,
}
"""R@1 in percent on SayCan with 7B, where nothing left out has 67.3 (arXiv 2604.23336, Table 3)."""

PAPER_DEPTH = ("one layer", "three layers")
"""Of one, two and three layers the paper found two best."""

DIRECTIONS = {
    "no multiplication": ("no multiplication",),
    "no MSE": ("no MSE",),
    "no KL": ("no KL",),
    "forward instead of reverse": ("forward KL", "forward divergences"),
    "one layer instead of two": ("one layer",),
    "three layers instead of two": ("three layers",),
}
"""A row of the comparison with the paper, and the variants that make it."""

LOSSES = {"paper": "the paper's loss", "default": "our loss"}
"""The groups that the paper's ablations are in."""

Run = dict[str, Any]


def ablations(name: str, found: dict[str, Any]) -> list[str]:
    """One study's tables of ``ablations.py``, group by group; its name is that of dataset and teacher."""
    lines = [
        f"## What each part is worth: {name}",
        "",
        f"Predictors alone are trained, on one teacher's outputs; {_measured(found)}",
    ]
    for group, described in GROUPS.items():
        runs = [run for run in found["runs"] if run["group"] == group]
        if runs:
            lines += ["", f"Reference: {described.about}.", "", *_table(runs, *COLUMNS[group])]
    return [*lines, ""]


def directions(studies: Mapping[str, dict[str, Any]]) -> list[str]:
    """The paper's ablations, and what each study says of them with the paper's loss and with ours."""
    columns = [(name, group, study) for name, study in studies.items() for group in LOSSES if varied(study, group)]
    titles = [f"{name}, {LOSSES[group]}" for name, group, _ in columns]
    lines = ["## The paper's ablations", "", "Difference of test MRR from each group's reference (details below).", ""]
    lines += [f"| | the paper, R@1 | {' | '.join(titles)} |", "|---" * (len(columns) + 2) + "|"]
    for row, names in DIRECTIONS.items():
        seen = f"{PAPER[names[0]]} for 67.3" if names[0] in PAPER else "worse"
        cells = (_direction(study, group, names) for _, group, study in columns)
        lines.append(f"| {row} | {seen} | {' | '.join(cells)} |")
    return [*lines, ""]


def varied(study: dict[str, Any], group: str) -> bool:
    """Whether a study has anything of the paper's ablations in a group, beside the group's reference."""
    names = {name for names in DIRECTIONS.values() for name in names}
    return any(run["group"] == group and run["variant"] in names for run in study["runs"])


def _direction(study: dict[str, Any], group: str, names: Sequence[str]) -> str:
    seen = compared(study, group, names)
    return "" if seen is None else f"{seen[1].difference:+.3f}: {_agrees(*seen)}"


def compared(study: dict[str, Any], group: str, names: Sequence[str]) -> tuple[list[Run], Difference] | None:
    """The runs of a group's variants, and the difference of their MRR from its reference; None where there are none."""
    runs = [run for run in study["runs"] if run["group"] == group]
    own = [run for run in runs if run["variant"] in names]
    if not own:
        return None
    reference = [run for run in runs if run["variant"] == "reference"]
    return own, paired_difference(_reciprocal(own), _reciprocal(reference))


def taps(found: dict[str, Any]) -> list[str]:
    """One dataset's table of ``taps.py``."""
    lines = [
        f"## Where to read the frozen model: {found['dataset']}",
        "",
        f"Predictors trained on the labels of {found['queries']['train']:,} queries alone; {_measured(found)} "
        "Reference: the final state at the last position on both sides, as in the paper.",
    ]
    return [*lines, "", *_table(found["runs"]), ""]


def _measured(found: dict[str, Any]) -> str:
    return (
        f"{found['queries']['dev']:,} dev and {found['queries']['test']:,} test queries, whole corpus; means over the "
        "seeds. hit@1 is the share of queries with a right document first, ties counted against the student."
    )


def _table(runs: Sequence[Run], *more: str) -> list[str]:
    """One row for each variant, in the order of the runs; ``more`` names columns of ``_CELLS``."""
    columns = ["", "seeds", "dev MRR", "test hit@1", "test MRR", "MRR against the reference", "p", *more]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    reference = [run for run in runs if run["variant"] == "reference"]
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name]
        against = paired_difference(_reciprocal(own), _reciprocal(reference))
        cells = [name, str(len(own)), f"{mean(mrr(run, 'dev') for run in own):.3f}"]
        cells += [spread([hit(run, "test") for run in own]), spread([mrr(run, "test") for run in own])]
        cells += [f"{against.difference:+.3f} ({against.low:+.3f} to {against.high:+.3f})", f"{against.p:.4f}"]
        if name == "reference":
            cells[-2:] = ["", ""]
        cells += [_CELLS[column](own, against) for column in more]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seen(own: Sequence[Run], _: Difference) -> str:
    """What the paper saw."""
    name = own[0]["variant"]
    if name in PAPER:
        return f"worse ({PAPER[name]} for 67.3)"
    return "worse" if name in PAPER_DEPTH else ""


def _agrees(own: Sequence[Run], against: Difference) -> str:
    """Whether the interval of the difference says what the paper says."""
    if not _seen(own, against):
        return ""
    return "agrees" if against.high < 0 else "the opposite" if against.low > 0 else "no difference shown"


_CELLS: dict[str, Callable[[Sequence[Run], Difference], str]] = {
    "correlation": lambda own, _: f"{mean(run['correlation'] for run in own):.2f}",
    "pairs": lambda own, _: f"{mean(run['pairs'] for run in own):,.0f}",
    "the paper": _seen,
    "here": _agrees,
}
COLUMNS = {
    "default": ("correlation", "the paper", "here"),
    "paper": ("correlation", "the paper", "here"),
    "positions": ("correlation", "pairs"),
    "candidates": ("correlation", "pairs"),
}
"""What a group's table has besides."""


def _ranks(run: Run, split: str) -> list[int]:
    return [int(rank) for rank in run[split].split()]


def mrr(run: Run, split: str) -> float:
    """MRR of one run on one split."""
    return mean(1 / rank for rank in _ranks(run, split))


def hit(run: Run, split: str) -> float:
    """The share of a split's queries for which one run has a right document first."""
    return mean(rank == 1 for rank in _ranks(run, split))


def _reciprocal(runs: Sequence[Run]) -> dict[str, float]:
    """The reciprocal rank of each test query, the mean over the seeds."""
    each = zip(*(_ranks(run, "test") for run in runs), strict=True)
    return {str(i): mean(1 / rank for rank in ranks) for i, ranks in enumerate(each)}

"""The plots of docs/results.md, from the same files as its tables: accuracy and time, ablations, online time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
from ablation_report import DIRECTIONS, LOSSES, compared, mrr, varied
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rationale_report import APART, DATASETS, ROWS, apart
from stored_results import NAMES, accelerator, best, longer, means, reports

__all__ = ["ablation_differences", "accuracy_and_time", "kl_weights", "online_time"]

STYLE = {
    "svg.fonttype": "none",  # text stays text: a tenth of the size, and it can be searched
    "svg.hashsalt": "rabtriever",  # the same results make the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
}
mpl.rcParams.update(STYLE)
MARKERS = "osD^vP*Xph<>"


def accuracy_and_time(results: Path, target: Path) -> str | None:
    """R@1 over the time of a query, one panel a dataset; a longer training's accuracy, without a time, as a line."""
    found = reports(results, DATASETS)
    if not found:
        return None
    figure = Figure(figsize=(3.4 * len(found), 4.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, report) in zip(panels, found.items(), strict=True):
        _accuracies(panel, report, longer(results, name) or {"systems": {}})
        _read_apart(panel, [[one for one in group if not accelerator(one)] for group in apart(name, results)])
        panel.set(title=name, xscale="log", xlabel="ms per query", ylim=(0, None))
    panels[0].set_ylabel("R@1, percent")
    _legend(figure, panels)
    return _save(figure, target, "R@1 over the time of a query, by dataset and system")


def _accuracies(panel: Axes, report: dict[str, Any], more: dict[str, Any]) -> None:
    for place, (title, belongs) in enumerate(ROWS.items()):
        look = {"color": f"C{place % 10}", "label": title.replace("*", "")}
        if (system := best(report, belongs)) is not None:
            figures = report["systems"][system]
            size = 130 if title == NAMES["student"] else 45
            panel.scatter(figures["ms_per_query"], 100 * figures["R@1"], size, marker=MARKERS[place], **look)
        if (system := best(more, belongs)) is not None:
            line = {"linestyle": "--", "linewidth": 1, "color": look["color"]}
            panel.axhline(100 * more["systems"][system]["R@1"], **line, label=f"{look['label']}, longer training")


def _read_apart(panel: Axes, trained: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Teacher and student of the next text's words as hollow marks: the mean over those that have them."""
    for system in ("teacher", "student"):
        if not (found := means(system, trained)):
            continue
        place = list(ROWS).index(NAMES[system])
        time, right = (mean(one[key] for one in found) for key in ("ms_per_query", "R@1"))
        look = {"facecolors": "none", "edgecolors": f"C{place % 10}", "marker": MARKERS[place]}
        label = APART.format(NAMES[system].replace("*", ""))
        panel.scatter(time, 100 * right, 130 if system == "student" else 45, label=label, **look)


def ablation_differences(studies: Mapping[str, dict[str, Any]], target: Path) -> str:
    """The paper's ablations as differences of MRR with their intervals; without the one that ranks nothing at all."""
    rows = [row for row in DIRECTIONS if row != "no multiplication"]
    studies = _of_losses(studies)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(LOSSES), sharey=True)
    for panel, (group, title) in zip(panels, LOSSES.items(), strict=True):
        panel.axvline(0, color="black", linewidth=0.8)
        for number, (name, study) in enumerate(studies.items()):
            shift = 0.2 * (number - (len(studies) - 1) / 2)
            for place, row in enumerate(rows):
                if (seen := compared(study, group, DIRECTIONS[row])) is not None:
                    _, d = seen
                    ends = [[d.difference - d.low], [d.high - d.difference]]
                    where = {"color": f"C{number}", "label": name, "markersize": 4}
                    panel.errorbar(d.difference, place + shift, xerr=ends, fmt="o", **where)
        panel.set(title=title, xlabel="MRR against the reference", yticks=range(len(rows)), yticklabels=rows)
    panels[0].invert_yaxis()
    _legend(figure, panels)
    return _save(figure, target, "The paper's ablations: differences of MRR with intervals, by loss and dataset")


def kl_weights(studies: Mapping[str, dict[str, Any]], target: Path) -> str:
    """Test MRR over the weight of the KL, the paper's w, mean and standard deviation of the seeds."""
    studies = _of_losses(studies)
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(LOSSES), sharey=True)
    for panel, (group, title) in zip(panels, LOSSES.items(), strict=True):
        for number, (name, study) in enumerate(studies.items()):
            by_weight = sorted(_by_weight(study, group).items())
            if len(by_weight) < 2:
                continue
            weights, values = zip(*by_weight, strict=True)
            spreads = [stdev(part) if len(part) > 1 else 0.0 for part in values]
            how = {"color": f"C{number}", "label": name, "capsize": 2}
            panel.errorbar(weights, [mean(part) for part in values], yerr=spreads, fmt="o-", **how)
        panel.set(title=title, xscale="log", xlabel="weight of the KL")
    panels[0].set_ylabel("test MRR")
    _legend(figure, panels)
    return _save(figure, target, "Test MRR over the weight of the KL, by loss and dataset")


def _of_losses(studies: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The studies that have any of the paper's ablations."""
    return {name: study for name, study in studies.items() if any(varied(study, group) for group in LOSSES)}


def _by_weight(study: dict[str, Any], group: str) -> dict[float, list[float]]:
    """Weight -> MRR of each seed, of the reference and the variants in which nothing else differs."""
    weights: dict[float, list[float]] = {}
    for run in study["runs"]:
        if run["group"] == group and (run["variant"] == "reference" or run["variant"].startswith("KL ")):
            weights.setdefault(run["config"]["kl_weight"], []).append(mrr(run, "test"))
    return weights


def online_time(found: dict[str, Any], target: Path) -> str:
    """The paper's Figure 4: the time of a query over the documents' length and number."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    parts = (("tokens of each of {documents} documents", "lengths"), ("documents of {length} tokens", "numbers"))
    for panel, (title, key) in zip(panels, parts, strict=True):
        part = found[key]
        for place, name in enumerate(part["ms"][0]):
            points = [(size, row[name]) for size, row in zip(part["sizes"], part["ms"], strict=True) if name in row]
            panel.plot(*zip(*points, strict=True), marker=MARKERS[place], markersize=4, label=name)
        panel.set(xscale="log", yscale="log", xlabel=title.format(**part))
    panels[0].set_ylabel("ms per query")
    _legend(figure, panels)
    return _save(figure, target, "Milliseconds per query over the documents' length and number")


def _legend(figure: Figure, panels: Any) -> None:
    """One legend below all panels, each entry once."""
    entries = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(3, len(entries)))


def _save(figure: Figure, target: Path, described: str) -> str:
    """Write the file; the line of Markdown that shows it on a page beside its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="svg", metadata={"Date": None, "Title": described})
    return f"![{described}]({target.parent.name}/{target.name})"

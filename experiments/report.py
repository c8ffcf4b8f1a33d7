"""docs/results.md from the JSON files in ``experiments/results`` alone: ``make report``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from ablation_report import ablations, directions, taps
from complexity_report import complexity
from fold_report import cross_validated
from generation_report import generation
from markdown.extensions.toc import slugify
from plots import ablation_differences, accuracy_and_time, kl_weights, online_time
from rationale_report import PAPER, rationale
from stored_results import SELECTED, accelerator, averaged, load, longer, named, reports, seeds, share_kept, spread
from teachers_report import several_teachers

from rabtriever.evaluation import paired_difference

HERE = Path(__file__).parent
NDCG = "nDCG@10"
MEASURES = ("R@1", "R@3", "R@5", "MRR@10", NDCG)

MERGED = ("general", "facts")
DATASETS = (
    *("esconv", "esconv-next", "esconv-next-160", "esconv-described"),
    *("saycan", "saycan-apart", "saycan-next", "saycan-302"),
    *("alfred", "alfred-apart", "alfred-next"),
    *MERGED,
)

_NEXT = "{} with the words around the texts that ask a query for the next one (`experiments/{}.yaml`), and a teacher "
_TERM = "{} behind the default words, with a teacher trained to read texts apart as well ({})."
ABOUT = {
    "esconv-next": _NEXT.format("ESConv", "esconv-next") + "that reads apart too, as the one above has learnt already.",
    "esconv-next-160": "The same of 160 tokens of each dialogue, as the bi-encoder reads, where the above reads 64.",
    "saycan-apart": _TERM.format("SayCan", "`saycan.yaml --set teacher.apart_weight=1 --set teacher.apart_queries=10`"),
    "saycan-next": _NEXT.format("SayCan", "saycan-next") + "trained to read texts apart as well.",
    "alfred-apart": _TERM.format(
        "ALFRED", "`alfred.yaml` with `apart_weight` 1, no adapter for queries, the last state"
    ),
    "alfred-next": _NEXT.format("ALFRED", "alfred-next") + "trained to read texts apart as well.",
}
"""Of results that have a dataset's name and more: what was done otherwise."""

OTHERWISE = {
    "dpo": "A teacher trained by DPO",
    "half": "A teacher of the backbone's lower half",
    "gemma": "A teacher of Gemma 3 270M",
}
"""Suffix of a results file, without its number -> what was trained instead."""

_PAPER_FACTS = (
    "The paper, with 7B: nDCG@10 over 13 datasets of BEIR, best bi-encoder 59.2, student 58.2, teacher 65.8 percent; "
    "MS MARCO's MRR@10 44.05, 49.3, 52.4. Its corpora are whole; MS MARCO here is a small part, so only what lies "
    "between systems compares."
)

_TIMES = (
    "Times are of two processors, on the days on which each system was measured; dashed lines are longer trainings on "
    "a GPU, whose times would say nothing here. One seed of each."
)

_BEGINNING = (
    "# Results",
    "",
    "Made by `make report` from the files in `experiments/results`, which hold seed, versions, data fingerprint and",
    "every query's values. Base model: SmolLM2-135M-Instruct; two processors and no accelerator, but where a GPU is",
    "named. How each was made, and what did not work, is in `experiments/README.md` and its notes.",
    "",
)

_PLACES = {
    "Table 2": "Retrieval that needs reasoning: all systems",
    "Table 3, Figures 5 and 8": "The paper's ablations",
    "Figure 6 and Table 4": "facts on other datasets",
    "Figure 4": "Online time",
    "Appendix B.3": "Answers under a retrieved strategy: esconv",
}
"""In the paper -> a heading here; Table 6, significance, is beside every table."""


def section(name: str, results: Path) -> list[str]:
    """One dataset: a table of systems, what the student keeps, and every difference with its interval."""
    main, others = load(results / f"{name}.json"), seeds(results, name)
    lines = [f"## {name}", "", f"{main['queries']:,} {main['split']} queries; data `{main['fingerprint'][:12]}`."]
    lines += ["", ABOUT[name]] if name in ABOUT else []
    lines += ["", f"On one {gpu}, whose times compare with no other's."] if (gpu := accelerator(main)) else []
    training = results / f"{name}-training.json"
    if training.exists():
        lines += ["", _training(load(training))]
    lines += ["", "| system | " + " | ".join(MEASURES) + " | ms/query | queries |", "|---" * (len(MEASURES) + 3) + "|"]
    for system, figures in main["systems"].items():
        cells = [_figure(system, measure, figures, others) for measure in MEASURES]
        time = f"{figures['ms_per_query']:,.1f} | {figures['queries']:,} |"
        lines.append(f"| {named(system, figures)} | {' | '.join(cells)} | {time}")
    if others:
        lines += ["", f"The student: mean and standard deviation of {len(others) + 1} seeds on the same teacher."]
    lines += ["", *_kept(main, others), "", *_paper(name)]
    for suffix, what in OTHERWISE.items():
        for path in sorted(results.glob(f"{name}-{suffix}*.json")):
            lines += ["", *_again(what, load(path))]
    return [
        *lines,
        "",
        *_differences(main, others),
        "",
        *several_teachers(name, results),
        *_on_a_gpu(name, main, results),
    ]


def _on_a_gpu(name: str, main: dict[str, Any], results: Path) -> list[str]:
    """Trainings that read more, on one GPU: systems without their times, and differences from the student."""
    found = longer(results, name)
    if found is None:
        return []
    lines = [
        f"### {name}, more training",
        "",
        f"On one {accelerator(found)}, which several trainings shared: times would say nothing.",
    ]
    training = results / f"{name}-gpu-training.json"
    lines += ["", _training(load(training))] if training.exists() else []
    lines += ["", "| system | " + " | ".join(MEASURES) + " | queries |", "|---" * (len(MEASURES) + 2) + "|"]
    for system, figures in found["systems"].items():
        cells = (f"{figures[measure]:.3f}" for measure in MEASURES)
        lines.append(f"| {named(system, figures)} | {' | '.join(cells)} | {figures['queries']:,} |")
    if "student" in found["systems"]:
        return [*lines, "", *_kept(found, ()), "", *_differences(found, ()), ""]
    for student, report in ({name: main} | reports(results, [f"{name}-next"])).items():
        both = {key: {**found[key], "student": report[key]["student"]} for key in ("systems", "per_query")}
        lines += ["", f"The student of {student} against it:", "", *_differences({**found, **both}, ())]
    return [*lines, ""]


def _students(main: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measure -> query -> value, for each seed's student."""
    return [report["per_query"]["student"] for report in (main, *seeds)]


def _figure(system: str, measure: str, figures: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> str:
    further = (report["systems"]["student"][measure] for report in seeds if system == "student")
    return spread([figures[measure], *further])


def _kept(main: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> list[str]:
    """The student's share of its teacher's figures on the queries that both answered, by seed."""
    teacher = main["per_query"].get("teacher")
    if teacher is None or SELECTED in main["systems"]["teacher"]["description"]:
        return []
    parts = []
    for measure in ("R@1", "MRR@10"):
        queries = teacher[measure]
        shares = [100 * share_kept(student[measure], queries) for student in _students(main, seeds)]
        listed = f" ({', '.join(f'{share:.0f}' for share in shares)})" if len(shares) > 1 else ""
        parts.append(f"{mean(shares):.0f} % of its {measure}{listed}")
    return [f"What the student keeps of the teacher, on the teacher's {len(queries):,} queries: {'; '.join(parts)}."]


def _again(what: str, report: dict[str, Any]) -> list[str]:
    """Another teacher and its student."""
    figures = []
    for kind in ("teacher", "student", "rerank"):
        if found := report["systems"].get(kind):
            cost = f"{found['queries']:,} queries"
            cost += "" if accelerator(report) else f", {found['ms_per_query']:,.0f} ms"
            title = named(kind, found) if kind == "rerank" else kind
            figures.append(f"{title} {found['R@1']:.3f} / {found['MRR@10']:.3f} ({cost})")
    where = f", on one {gpu}" if (gpu := accelerator(report)) else ""
    return [f"{what}{where}, and its student: R@1 / MRR@10 {', '.join(figures)}.", *_kept(report, ())]


def _paper(name: str) -> list[str]:
    if name not in PAPER:
        return []
    figures = ", ".join(f"{system} {r1} / {mrr}" for system, (r1, mrr) in PAPER[name].items())
    kept = 100 * PAPER[name]["student"][0] / PAPER[name]["teacher"][0]
    return [f"The paper, with 7B (R@1 / MRR in percent): {figures}; the student keeps {kept:.1f} % of R@1."]


def _differences(main: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> list[str]:
    """Paired bootstrap over queries of the student, the mean of its seeds, against each other system."""
    columns = ("student against", "measure", "queries", "difference", "95 % interval", "p")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    measures = ("R@1", "MRR@10")
    student = {measure: averaged([one[measure] for one in _students(main, seeds)]) for measure in measures}
    for system in main["systems"]:
        for measure in measures if system != "student" else ():
            figures = _difference(student[measure], main["per_query"][system][measure], main["seed"])
            lines.append(f"| {' | '.join((named(system, main['systems'][system]), measure, *figures))} |")
    return lines


def other_datasets(model: str, results: Path) -> list[str]:
    """Datasets beside a merged model's own, whose queries it has not seen: a table a measure, and the differences."""
    start = f"zero-shot-{model}-"
    paths = sorted(results.glob(f"{start}*.json"))
    if not paths:
        return []
    reports = {path.stem.removeprefix(start): load(path) for path in paths}
    names = list(reports)
    lines = [f"## {model} on other datasets", ""]
    for name, report in reports.items():
        queries = f"{report['queries']:,} queries of the split {report['split']}"
        lines.append(f"- {name}: {queries}; data `{report['fingerprint'][:12]}`.")
    training = results / f"{model}-training.json"
    if training.exists() and not (results / f"{model}.json").exists():  # else its own section says so
        lines += ["", _training(load(training))]
    described = {
        system: named(system, figures) for report in reports.values() for system, figures in report["systems"].items()
    }
    for measure in (NDCG, "MRR@10"):
        lines += ["", f"{measure} (and of how many queries, if not of all):", ""]
        lines += [f"| system | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for system, title in described.items():
            cells = (_mean_cell(report, system, measure) for report in reports.values())
            lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", _PAPER_FACTS, ""]
    columns = ("dataset", "student against", "queries", "difference", "95 % interval", "p")
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, report in reports.items():
        student = report["per_query"]["student"][NDCG]
        for system in report["systems"]:
            if system != "student":
                other = report["per_query"][system][NDCG]
                cells = (name, described[system], *_difference(student, other, report["seed"]))
                lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _mean_cell(report: dict[str, Any], system: str, measure: str) -> str:
    if system not in report["systems"]:
        return ""
    queries = len(report["per_query"][system][measure])
    count = "" if queries == report["queries"] else f" ({queries})"
    return f"{report['systems'][system][measure]:.3f}{count}"


def _difference(one: dict[str, float], other: dict[str, float], seed: int) -> tuple[str, ...]:
    found = paired_difference(one, other, seed=seed)
    interval = f"{found.low:+.3f} to {found.high:+.3f}"
    return f"{found.queries:,}", f"{found.difference:+.3f}", interval, f"{found.p:.4f}"


def _training(training: dict[str, Any]) -> str:
    teacher, student = training["teacher"], training["distill"]
    return (
        f"Stage I: {teacher['steps']:,} steps, {teacher['tokens']:,} tokens, {teacher['seconds'] / 60:.0f} minutes; "
        f"stage III: {student['pairs']:,} pairs, {student['epochs']} epochs, {student['seconds'] / 60:.0f} minutes "
        f"(of which most for the teacher's outputs, unless they were stored)."
    )


def contents(lines: Sequence[str]) -> str:
    """Where the paper's tables and figures are, of those that there are."""
    links = (f"{theirs}: [{ours}](#{slugify(ours, '-')})" for theirs, ours in _PLACES.items() if f"## {ours}" in lines)
    return "; ".join(("The paper's Table 6, significance: beside every table", *links)) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("-o", "--output", type=Path, default=HERE.parent / "docs" / "results.md")
    options = parser.parse_args()
    names = reports(options.results, DATASETS)
    images = options.output.parent / "images"
    lines = rationale(options.results)
    if plot := accuracy_and_time(options.results, images / "accuracy-and-time.svg"):
        lines += [plot, "", _TIMES, ""]
    for name in names:
        lines += section(name, options.results)
        lines += cross_validated(name, options.results)
    for name in MERGED:
        lines += other_datasets(name, options.results)
    paths = sorted(options.results.glob("ablations-*.json"))
    studies = {path.stem.removeprefix("ablations-"): load(path) for path in paths}
    if studies:
        lines += [*directions(studies), ablation_differences(studies, images / "ablations.svg"), ""]
        lines += [kl_weights(studies, images / "kl-weights.svg"), ""]
    for name, study in studies.items():
        lines += ablations(name, study)
    for path in sorted(options.results.glob("taps-*.json")):
        lines += taps(load(path))
    for path in sorted(options.results.glob("generation-*.json")):
        lines += generation(load(path))
    times = options.results / "complexity.json"
    if times.exists():
        lines += [*complexity(load(times)), online_time(load(times), images / "online-time.svg"), ""]
    lines = [*_BEGINNING, contents(lines), "", *lines]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines).rstrip() + "\n")
    print(f"{options.output}: {', '.join(names)}")


if __name__ == "__main__":
    main()

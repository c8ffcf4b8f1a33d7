"""The table of ``generation.py``: what a strategy in the prompt does to the answer."""

from __future__ import annotations

from statistics import mean
from typing import Any

from stored_results import against

__all__ = ["generation"]

NAMES = {
    "none": "no strategy",
    "random": "a strategy drawn at random",
    "retrieved": "the student's strategy",
    "labelled": "the labelled strategy",
}
MEASURES = {"log_likelihood": "log-likelihood of the reference, nats per token", "chrf": "chrF of the answer"}


def generation(found: dict[str, Any]) -> list[str]:
    """Both measures by condition, each against no strategy and against a random one."""
    conditions = found["per_query"]
    right = conditions["labelled"]["strategy"]
    hit = mean(conditions["retrieved"]["strategy"][query] == strategy for query, strategy in right.items())
    lines = [
        f"## Answers under a retrieved strategy: {found['dataset']}",
        "",
        f"{len(right):,} test dialogues; {found['base']} answers, untrained; the student's strategy is the labelled "
        f"one in {hit:.0%} of them. The reference is what the supporter really said. Differences are paired, with 95 % "
        "intervals. Neither measure says whether an answer would help.",
    ]
    for measure, title in MEASURES.items():
        lines += ["", f"| {title} | mean | against no strategy | against a random one |", "|---|---|---|---|"]
        for name in conditions:
            values = conditions[name][measure]
            cells = [NAMES[name], f"{mean(values.values()):.3f}"]
            for other in ("none", "random"):
                cells.append("" if name in ("none", other) else against(values, conditions[other][measure]))
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]

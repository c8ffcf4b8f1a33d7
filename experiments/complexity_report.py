"""The table of ``complexity.py``: the paper's Figure 4."""

from __future__ import annotations

from typing import Any

__all__ = ["complexity"]


def complexity(found: dict[str, Any]) -> list[str]:
    """The paper's Figure 4: times against length and number, and the exponents."""
    by_length, by_number = found["lengths"], found["numbers"]
    lines = ["## Online time", "", f"Milliseconds for one query, {found['base']} in {found['dtype']}."]
    for title, part in (
        (f"{by_length['documents']} documents of so many tokens each", by_length),
        (f"So many documents of {by_number['length']} tokens each", by_number),
    ):
        lines += ["", f"| {title} | {' | '.join(map(str, part['sizes']))} |", "|---" * (len(part["sizes"]) + 1) + "|"]
        for name in part["ms"][0]:
            cells = (f"{row[name]:,.1f}" if name in row else "" for row in part["ms"])
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| time grows as a power of | length | number |", "|---|---|---|"]
    for name, power in found["exponents"]["length"].items():
        lines.append(f"| {name} | {power:.2f} | {found['exponents']['number'].get(name, float('nan')):.2f} |")
    theory = (
        "Theory: the teacher's exponent lies between 1 (what is linear in the tokens) and 2 (attention) for the length",
        "and is 1 for the number (Eq. 5); the student's is 0 for the length and at most 1 for the number (Eq. 14).",
        "Query and instruction, some fifty tokens in each pass, flatten a teacher's growth over short documents.",
    )
    return [*lines, "", *theory, ""]

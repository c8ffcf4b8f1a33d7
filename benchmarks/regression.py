"""Two reports side by side: which ratios have become worse. Ratios, since times are those of one machine and one hour.

    python benchmarks/regression.py benchmarks/results.json new.json [--margin 0.25]

Exits with 1 where a ratio is worse by more than the margin, or is not there any more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LESS_IS_BETTER = {"times_limit", "share_of_plain"}
MORE_IS_BETTER = {"share_of_limit", "times_sentence_transformers", "times_plain", "worst_cosine"}

Place = tuple[str, str, str]
"""A part, a system, and a ratio of it."""


def ratios(report: dict[str, Any]) -> dict[Place, float]:
    """Every ratio of a report by part, system and name."""
    known = MORE_IS_BETTER | LESS_IS_BETTER
    return {
        (part, system, name): value
        for part, found in report["parts"].items()
        for system, row in found.get("systems", {}).items()
        for name, value in row.items()
        if name in known
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[Place, float, float | None]]:
    """Each ratio of the parts that both measured, as it was, and by how much it has become better (1: not at all)."""
    new = ratios(after)
    for place, value in ratios(before).items():
        if place[0] in after["parts"]:
            now = new.get(place)
            worse_when_larger = place[2] in LESS_IS_BETTER
            yield place, value, None if now is None else (value / now if worse_when_larger else now / value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--margin", type=float, default=0.25, help="by which a ratio may be worse")
    options = parser.parse_args()
    before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    worse = 0
    for (part, system, name), value, better in changes(before, after):
        bad = better is None or better < 1 - options.margin
        worse += bad
        said = "missing" if better is None else f"{better:.2f} times as good"
        print(f"{'WORSE ' if bad else '      '}{part}, {system}: {name.replace('_', ' ')} was {value:.3g}, {said}")
    if worse:
        sys.exit(f"{worse} ratio(s) are worse by more than {options.margin:.0%}")


if __name__ == "__main__":
    main()

"""A robot that picks its next skill.

    python examples/robot_skills.py MODEL "I spilled my coke" --category cleaning

The skills are those of the example dataset. The student ranks them, the teacher rereads the best five, and where
nothing is probable enough the robot asks rather than acts.
"""

from __future__ import annotations

import argparse
import sys
from tempfile import TemporaryDirectory

from rabtriever import Dataset, Index, Retriever


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Pick a skill for a situation.")
    parser.add_argument("model")
    parser.add_argument("situation")
    parser.add_argument("--category", help="only skills of this category, such as cleaning")
    parser.add_argument("--at-least", type=float, default=0.2, help="the least probability to act upon")
    given = parser.parse_args(arguments)
    where = None if given.category is None else f"category = '{given.category}'"
    student = Retriever.from_pretrained(given.model)
    with TemporaryDirectory() as scratch, Index.create(f"{scratch}/skills", student) as skills:
        skills.add(Dataset.example().corpus.values())
        best = skills.search(given.situation, k=3, rerank=5, filter=where)
    if not best or best[0].probability < given.at_least:
        print(f"I am not sure what to do. Shall I {' or '.join(hit.text for hit in best) or 'do something'}?")
    else:
        print(f"I will {best[0].text} ({best[0].probability:.0%}).")


if __name__ == "__main__":
    main(sys.argv[1:])

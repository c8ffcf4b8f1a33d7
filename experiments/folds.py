"""Another test set of a small dataset: its other queries dealt into parts, of which one is tested on.

    python experiments/folds.py DATA/saycan -o models/saycan-fold-1 --parts 4 --part 1

With 112 test queries of twenty instructions an interval is wide, and one draw of instructions decides much. Part 0 is
the test split that the dataset comes with; the queries of ``train`` and ``dev`` are dealt into the other parts, all of
one task together, and a tenth of what is left is the new ``dev``. A query's task is its first line; two that differ by
how they open (*Can you ...*, *How would you ...*) or by case and punctuation are one.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rabtriever import Dataset
from rabtriever.data import Query

OPENING = re.compile(r"^(?:instruction: )?(?:(?:how would|can|could) you )?")
DEV = 0.1


def task(query: Query) -> str:
    """What is asked for, without how: equal for two queries of one plan."""
    words = re.sub(r"[^\w\s:]", "", query.text.partition("\n")[0].lower())
    return OPENING.sub("", words).strip()


def deal(queries: Sequence[Query], parts: int, seed: int) -> list[list[Query]]:
    """Parts of about as many queries each; a task's are in one part."""
    by_task: dict[str, list[Query]] = {}
    for query in queries:
        by_task.setdefault(task(query), []).append(query)
    dealt: list[list[Query]] = [[] for _ in range(parts)]
    shuffled = np.random.default_rng(seed).permutation(sorted(by_task))
    for name in sorted(shuffled, key=lambda name: -len(by_task[name])):  # the largest first, so that the parts are even
        min(dealt, key=len).extend(by_task[name])
    return dealt


def fold(dataset: Dataset, parts: int, part: int, seed: int) -> Dataset:
    """The dataset with one part as its ``test``, the others as ``train`` and ``dev``."""
    known = {split: dataset.split(split) for split in ("train", "dev", "test")}
    others = deal([*known["train"], *known["dev"]], parts - 1, seed)
    test = others.pop(part - 1)
    rest = [query for one in (*others, known["test"]) for query in one]
    dev = deal(rest, round(1 / DEV), seed)[0]
    held = {query.id for query in dev}
    grades = {id_: found for split in known for id_, found in dataset.judgements(split).items()}
    chosen = {"train": [query for query in rest if query.id not in held], "dev": dev, "test": test}
    qrels = {split: {query.id: grades[query.id] for query in found} for split, found in chosen.items()}
    return replace(dataset, qrels=qrels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--part", type=int, required=True, help="from 1 to PARTS - 1")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 1 <= options.part < options.parts:
        expected = f"one of 1 to {options.parts - 1}; part 0 is DATASET's own test split"
        raise SystemExit(f"--part is {options.part}: {expected}")
    dataset = Dataset.load(options.dataset)
    fold(dataset, options.parts, options.part, options.seed).save(options.output)


if __name__ == "__main__":
    main()

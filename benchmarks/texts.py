"""Real texts of mixed length: a fixed draw from datasets in BEIR layout."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rabtriever import Dataset, Prompt


def documents(folders: Sequence[Path], tokens: int, prompt: Prompt) -> list[str]:
    """Documents drawn in turn from each dataset, until the model reads about so many tokens in all."""
    rng = random.Random(0)
    pools = []
    for folder in folders:
        pool = [document.content for document in _load(folder).corpus.values()]
        rng.shuffle(pool)
        pools.append(pool)
    chosen: list[str] = []
    while tokens > 0 and any(pools):
        for pool in filter(None, pools):
            chosen.append(pool.pop())
            tokens -= len(prompt.document_ids(chosen[-1]))
    return chosen


def queries(folder: Path, count: int) -> list[str]:
    """Queries of a dataset, drawn by seed."""
    pool = [query.text for query in _load(folder).queries.values()]
    return random.Random(0).sample(pool, min(count, len(pool)))


def with_tokens(texts: Sequence[str], count: int, prompt: Prompt) -> str:
    """Words of several texts, as many as make so many tokens of a document, without the template's."""
    constant = len(prompt.document_ids(""))
    words = " ".join(texts).split()
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        read = len(prompt.document_ids(" ".join(words[:middle]))) - constant
        low, high = (middle, high) if read <= count else (low, middle - 1)
    return " ".join(words[:low])


def _load(folder: Path) -> Dataset:
    return Dataset.example() if str(folder) == "example" else Dataset.load(folder)

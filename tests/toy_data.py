"""A dataset of one glance, and a way to stop what is running at an exact moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rabtriever.data import Dataset, Document, Query
from rabtriever.progress import SilentProgress, Task
from rabtriever.prompt import PromptConfig

TOOLS = ("sponge", "broom", "kettle", "torch", "ladder", "towel")
NEEDS = (
    "I spilled my coke",
    "crumbs on the floor",
    "tea for two",
    "it is dark",
    "I cannot reach it",
    "my hair is wet",
)
FORMS = ("{}", "{}, what now", "help, {}", "oh no, {}", "well: {}", "{} again")
SPLITS = {"train": FORMS[:4], "dev": FORMS[4:5], "test": FORMS[5:]}

SHORT = PromptConfig(document="D: {text}\n", query="Q: {text}\n<T>?", max_document_tokens=16, max_query_tokens=24)
"""A prompt of few tokens, for quick training."""


def toy_dataset(*, dev: bool = True, name: str = "toy") -> Dataset:
    """Six tools, and needs in several wordings that each call for one of them."""
    documents = {tool: Document(tool, f"take the {tool}") for tool in TOOLS}
    queries, qrels = {}, {}
    for split, forms in SPLITS.items():
        if split == "dev" and not dev:
            continue
        qrels[split] = {}
        for form in forms:
            for tool, need in zip(TOOLS, NEEDS, strict=True):
                key = f"{split}-{len(queries)}"
                queries[key] = Query(key, form.format(need))
                qrels[split][key] = {tool: 1}
    return Dataset(name, documents, queries, qrels)


class StopAt(SilentProgress):
    """Sends Ctrl-C to this process when a task has counted so many units.

    Args:
        task: The task's name.
        count: How many units; what a resumed task counts at its start is part of it.
    """

    def __init__(self, task: str, count: int) -> None:
        self.name, self.count = task, count

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
        yield _Counter(self.count if description == self.name else None)


class _Counter:
    def __init__(self, count: int | None) -> None:
        self.left = count

    def advance(self, n: int = 1) -> None:
        if self.left is not None:
            self.left -= n
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)

    def note(self, text: str) -> None:
        pass

"""The index's doubles as a server needs them, and ways to make them slow or faulty."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index.doubles import HashingStudent, HashingTeacher


@dataclass
class TokenPrompt:
    """Counts words."""

    hash: str = "prompt-1"

    def document_ids(self, text: str) -> list[int]:
        return [0] * (1 + len(text.split()))

    def query_ids(self, text: str) -> list[int]:
        return [0] * (2 + len(text.split()))


@dataclass
class PairTeacher(HashingTeacher):
    prompt: Any = field(default_factory=TokenPrompt)

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([float(self.score(query, [text])[0]) for query, text in pairs], np.float32)


@dataclass
class Student(HashingStudent):
    reranker: Any = field(default_factory=PairTeacher)


@dataclass
class SlowStudent(Student):
    """Takes its time with every batch."""

    seconds: float = 0.2

    def encode_query(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self.seconds)
        return super().encode_query(texts)


class Gated:
    """Computes nothing until it is opened, and remembers the batches."""

    def __init__(self, answer: Callable[[Any], Any] = len) -> None:
        self.open = threading.Event()
        self.began = threading.Event()
        self.batches: list[list[Any]] = []
        self._answer = answer

    def __call__(self, contents: list[Any]) -> list[Any]:
        self.batches.append(list(contents))
        self.began.set()
        assert self.open.wait(10)
        return [self._answer(content) for content in contents]

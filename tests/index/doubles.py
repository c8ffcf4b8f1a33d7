"""A student and a teacher without a language model: every text gets a random vector of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rabtriever.data import Document
from rabtriever.index import Index


@dataclass
class HashingPrompt:
    hash: str = "prompt-1"


@dataclass
class HashingTeacher:
    prompt: HashingPrompt = field(default_factory=HashingPrompt)
    calls: list[tuple[str, list[str]]] = field(default_factory=list)

    def score(self, query: str, documents: Sequence[str]) -> np.ndarray:
        self.calls.append((query, list(documents)))
        return np.array([_vector(f"{query}|{text}", 1)[0] for text in documents], np.float32)


@dataclass
class HashingStudent:
    dimension: int = 16
    bias: float = -0.25
    fingerprint: str = "student-1"
    path: str | None = None
    reranker: HashingTeacher = field(default_factory=HashingTeacher)
    encoded: list[str] = field(default_factory=list)
    """Every document that was encoded, in order."""
    documents_by: str = ""
    """Who reads documents, where it is another than the whole model."""

    @property
    def document_fingerprint(self) -> str:
        return self.documents_by or self.fingerprint

    def encode_document(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded.extend(texts)
        return np.stack([_vector(f"document {text}", self.dimension) for text in texts])

    def encode_query(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([_vector(f"query {text}", self.dimension) for text in texts])


def _vector(text: str, dimension: int) -> np.ndarray:
    """A vector that depends on the text alone, with log-normal norm and one large dimension, as LLMs have."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(dimension) * rng.lognormal(0, 0.5)
    vector[0] *= 20
    return vector.astype(np.float32)


def numbered(start: int, stop: int) -> list[Document]:
    """Documents ``d0``, ``d1``, ... with their number and its parity as metadata."""
    return [
        Document(
            f"d{i}", f"text number {i}", "" if i % 3 else f"title {i}", {"number": i, "parity": ["even", "odd"][i % 2]}
        )
        for i in range(start, stop)
    ]


def brute_force(index: Index, student: HashingStudent, documents: Sequence[Document], query: str, k: int) -> list[str]:
    """The ids of the k best documents, computed the plain way."""
    vectors = HashingStudent(student.dimension).encode_document([document.content for document in documents])
    scores = vectors.astype(np.float64) @ student.encode_query([query])[0].astype(np.float64)
    order = sorted(range(len(documents)), key=lambda i: (-float(np.float32(scores[i])), documents[i].id))
    return [documents[i].id for i in order[:k]]

"""The language model as many threads may use it: every call waits in the engine's queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rabtriever.index.protocol import Encoder, HashedPrompt, Teacher
from rabtriever.serving.engine import Compute, Engine
from rabtriever.serving.queue import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BatchedModel", "BatchedTeacher", "PairTeacher", "ServedModel", "ServedPrompt", "Writer", "work_of"]


class ServedPrompt(HashedPrompt, Protocol):
    """A prompt that shows how many tokens a text takes."""

    def document_ids(self, text: str) -> list[int]:
        """Ids of the document part."""

    def query_ids(self, text: str) -> list[int]:
        """Ids of the query part."""


class PairTeacher(Teacher, Protocol):
    """A teacher that scores pairs of several queries together; :class:`rabtriever.Reranker` is one."""

    @property
    def prompt(self) -> ServedPrompt:
        """The instruction."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Log-odds of (query, document) pairs, ``(n,)``."""


class ServedModel(Encoder, Protocol):
    """A student whose teacher scores pairs; :class:`rabtriever.Retriever` is one."""

    @property
    def reranker(self) -> PairTeacher:
        """The teacher on the same language model."""


class Writer(Protocol):
    """Says in words why; :class:`rabtriever.rationale.RationaleWriter` is one."""

    name: str

    def write(self, query: str, document: str, *, fits: bool) -> str:
        """Explain a verdict."""


def work_of(student: ServedModel, teacher: PairTeacher, writer: Writer | None = None) -> dict[Kind, Compute]:
    """What the engine's worker does with each kind of work; it alone touches the models."""

    def count_tokens(contents: list[tuple[str, str]]) -> list[int]:
        prompt = student.reranker.prompt
        return [
            len(prompt.query_ids(text) if what == "query" else prompt.document_ids(text)) for what, text in contents
        ]

    work: dict[Kind, Compute] = {
        Kind.QUERY: student.encode_query,
        Kind.DOCUMENT: student.encode_document,
        Kind.PAIR: teacher.score_pairs,
        Kind.TOKENS: count_tokens,
    }
    if writer is not None:
        work[Kind.RATIONALE] = lambda asked: [writer.write(query, text, fits=fits) for query, text, fits in asked]
    return work


@dataclass(frozen=True, slots=True)
class BatchedTeacher:
    """A teacher whose scores come through the engine."""

    engine: Engine
    prompt: HashedPrompt

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each document answers the query, ``(n,)``."""
        return np.array(self.engine.submit(Kind.PAIR, [(query, text) for text in documents]), np.float32)


class BatchedModel:
    """A student whose vectors come through the engine; an index takes it for the student itself.

    Args:
        engine: Runs ``student``, and the teacher that reranks.
        student: Says what the vectors are.
    """

    def __init__(self, engine: Engine, student: Encoder) -> None:
        self.dimension, self.bias, self.path = student.dimension, student.bias, student.path
        self.fingerprint, self.document_fingerprint = student.fingerprint, student.document_fingerprint
        # The student's own prompt also where another teacher reranks: by it an index knows its model.
        self.reranker = BatchedTeacher(engine, student.reranker.prompt)
        self._engine = engine

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, ``(n, k)``."""
        return self._stack(self._engine.submit(Kind.DOCUMENT, texts))

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, ``(m, k)``."""
        return self._stack(self._engine.submit(Kind.QUERY, texts))

    def tokens(self, what: str, texts: Sequence[str]) -> int:
        """Tokens that the model reads of texts, as ``query`` or ``document``."""
        return sum(self._engine.submit(Kind.TOKENS, [(what, text) for text in texts]))

    def _stack(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)

"""What an index needs from a model; :class:`rabtriever.Retriever` provides it, and so may anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rabtriever.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Encoder", "HashedPrompt", "Teacher", "checked_vectors"]


class HashedPrompt(Protocol):
    """A prompt that can be told from others."""

    @property
    def hash(self) -> str:
        """The hash of everything that decides which tokens a text becomes."""


class Teacher(Protocol):
    """Scores documents by reading each together with the query."""

    @property
    def prompt(self) -> HashedPrompt:
        """The instruction."""

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each document answers the query, ``(n,)``."""


class Encoder(Protocol):
    """Turns documents and queries into vectors whose inner product, plus ``bias``, is the log-odds."""

    @property
    def dimension(self) -> int:
        """Width ``k`` of the vectors."""

    @property
    def bias(self) -> float:
        """What is added to the inner product."""

    @property
    def fingerprint(self) -> str:
        """The hash of everything that determines the vectors."""

    @property
    def document_fingerprint(self) -> str:
        """The hash of everything that determines the documents' vectors."""

    @property
    def path(self) -> str | None:
        """The folder the model was loaded from, as given, or ``None``."""

    @property
    def reranker(self) -> Teacher:
        """The teacher on the same language model."""

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, ``(n, k)``."""

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, ``(m, k)``."""


def checked_vectors(vectors: NDArray[np.float32], names: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Return what a model gave, contiguous, or say what is wrong with it.

    Args:
        vectors: Should be ``(len(names), dimension)``, of finite numbers that can be multiplied without overflow.
        names: What each vector stands for, for the message.
        dimension: The width of the index.

    Raises:
        DataError: The shape differs, or a vector holds NaN, an infinity or enormous numbers (code ``not_finite``).

    Example:
        >>> checked_vectors(np.ones((1, 2), np.float32), ["document 'd1'"], 2).shape
        (1, 2)
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    expected = (len(names), dimension)
    if vectors.shape != expected:
        raise DataError(
            f"the model gave vectors of shape {vectors.shape} where {expected} was expected",
            hint=f"the first text was {names[0]}",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", vectors, vectors)))
    if bad.size:
        raise DataError(
            f"the model gave a vector with NaN or infinite numbers for {names[bad[0]]}",
            hint="the model's weights are damaged, or its number format overflows: try dtype float32",
            code="not_finite",
        )
    return vectors

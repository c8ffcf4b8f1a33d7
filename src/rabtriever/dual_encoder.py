"""What every student does with its vectors: one inner product is the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.errors import InputError
from rabtriever.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DualEncoder"]


class DualEncoder(ABC):
    """Encodes documents and queries apart; the inner product of their vectors, plus ``bias``, is the log-odds.

    Example:
        >>> class Letters(DualEncoder):
        ...     dimension, bias = 1, 0.0
        ...     def encode_document(self, texts, progress=None):
        ...         return np.array([[len(text)] for text in texts], np.float32)
        ...     encode_query = encode_document
        >>> Letters().score("ab", ["abc"]).tolist()
        [6.0]
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """``k``, the length of a vector."""

    @property
    @abstractmethod
    def bias(self) -> float:
        """What :meth:`similarity` adds to every inner product: the head's constant ``b_T - b_F``."""

    @abstractmethod
    def encode_document(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Vectors of documents, ``(n, k)`` float32."""

    @abstractmethod
    def encode_query(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Folded vectors of queries, ``(m, k)`` float32: ``q = (w_T - w_F) * MLP(e_Q)``."""

    def similarity(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-odds of every query ``(m, k)`` with every document ``(n, k)``: ``(m, n)``.

        Raises:
            InputError: If the vectors have another length than this model's.
        """
        for vectors in (queries, documents):
            if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
                raise InputError(
                    f"expected vectors of shape (n, {self.dimension}), got {vectors.shape}",
                    hint="encode queries and documents with this model",
                )
        return np.asarray(queries @ documents.T + np.float32(self.bias), dtype=np.float32)

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each document answers the query, ``(n,)``."""
        scores: NDArray[np.float32] = self.similarity(self.encode_query([query]), self.encode_document(documents))[0]
        return scores

"""What every student does with its vectors: one inner product is the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from rabtriever.errors import InputError
from rabtriever.progress import Progress, SilentProgress, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DualEncoder", "Route"]

Route = Literal["query", "document"]
"""How a text is read."""


class DualEncoder(ABC):
    """Encodes documents and queries apart; the inner product of their vectors, plus ``bias``, is the log-odds.

    Example:
        >>> class Letters(DualEncoder):
        ...     dimension, bias = 1, 0.0
        ...     def _encode(self, texts, route, task):
        ...         return np.array([[len(text)] for text in texts], np.float32)
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
    def _encode(self, texts: Sequence[str], route: Route, task: Task) -> NDArray[np.float32]:
        """Vectors of texts, ``(n, k)`` float32; each text that is done is told to the task."""

    def encode_document(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Vectors of documents, ``(n, k)`` float32."""
        return self._watched(texts, "document", "encoding documents", progress)

    def encode_query(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Folded vectors of queries, ``(m, k)`` float32: ``q = (w_T - w_F) * MLP(e_Q)``."""
        return self._watched(texts, "query", "encoding queries", progress)

    def _watched(self, texts: Sequence[str], route: Route, what: str, progress: Progress | None) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise InputError("expected a list of texts, got one string", hint="write [text]")
        with (progress or SilentProgress()).task(what, total=len(texts), unit="texts") as task:
            return self._encode(texts, route, task)

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

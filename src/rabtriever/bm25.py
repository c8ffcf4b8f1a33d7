"""BM25 over a few texts, for a baseline and for wrong documents that share a query's words."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Bm25"]


class Bm25:
    """bm25s with English stop words and no stemming.

    Args:
        texts: What is searched; may be without a single word.

    Example:
        >>> [scores.argmax() for scores in Bm25(["find a sponge", "open the door"]).scores(["where is the sponge"])]
        [np.int64(0)]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        self._index = None
        tokens = _tokenize(texts)
        if any(tokens):  # bm25s cannot index texts without a single word
            self._index = _bm25s().BM25()
            self._index.index(tokens, show_progress=False)

    def scores(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """For each query the score of every text, ``(n,)``; 0 where no word is shared."""
        for words in _tokenize(queries):
            if self._index is None or not words:  # bm25s cannot score a query without a word
                yield np.zeros(self._count, dtype=np.float32)
            else:
                yield self._index.get_scores(words)


def _bm25s() -> Any:
    # It starts jax where that is installed, and jax takes three quarters of a GPU's memory when it starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import bm25s

    return bm25s


def _tokenize(texts: Sequence[str]) -> list[list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a text without a word is no news
        words: list[list[str]] = _bm25s().tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return words

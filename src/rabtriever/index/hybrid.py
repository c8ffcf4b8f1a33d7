"""BM25 over the store's texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.bm25 import Bm25
from rabtriever.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Lexical"]


class Lexical:
    """BM25 over the documents of one version, built in memory when first asked for.

    Args:
        places: The part and the row that each text stands for.
        texts: What models read of each document.

    Raises:
        InputError: The package bm25s is not installed.
    """

    def __init__(self, places: Sequence[tuple[int, int]], texts: Iterable[str]) -> None:
        self._places = places
        try:
            self._bm25 = Bm25(list(texts))
        except ModuleNotFoundError as error:
            raise InputError(
                "hybrid search needs the package bm25s, which is not installed", hint="pip install 'rabtriever[hybrid]'"
            ) from error

    def find(
        self, queries: Sequence[str], depth: int, masks: Sequence[NDArray[np.bool_] | None]
    ) -> list[list[tuple[int, int]]]:
        """For each query the places of at most ``depth`` documents that share a word with it, best first.

        Args:
            queries: The queries' texts.
            depth: How many at most.
            masks: For each part which of its rows take part; None where all do.
        """
        allowed = np.array([mask is None or bool(mask[row]) for part, row in self._places for mask in (masks[part],)])
        found = []
        for scores in self._bm25.scores(queries):
            rows = np.flatnonzero((scores > 0) & allowed) if len(scores) else np.empty(0, np.intp)
            best = rows[np.argsort(-scores[rows], kind="stable")[:depth]]
            found.append([self._places[row] for row in best])
        return found

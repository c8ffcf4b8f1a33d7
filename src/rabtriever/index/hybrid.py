"""BM25 over the store's texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.bm25 import Bm25

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Lexical"]


class Lexical:
    """BM25 over the documents of one version, built in memory when first asked for.

    Args:
        places: The part and the row that each text stands for.
        texts: What models read of each document.
    """

    def __init__(self, places: Sequence[tuple[int, int]], texts: Iterable[str]) -> None:
        self._parts, self._rows = np.array(places, np.int64).reshape(-1, 2).T
        keys = _keys(self._parts, self._rows)
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]
        self._bm25 = Bm25(list(texts))

    def find(
        self,
        queries: Sequence[str],
        depth: int,
        masks: Sequence[NDArray[np.bool_] | None],
        others: Sequence[Collection[tuple[int, int]]] | None = None,
    ) -> list[dict[tuple[int, int], float]]:
        """For each query the scores of at most ``depth`` documents that share a word with it, best first.

        Args:
            queries: The queries' texts.
            depth: How many at most.
            masks: For each part which of its rows take part; None where all do.
            others: For each query further documents whose scores are wanted; they come last.
        """
        allowed = np.ones(len(self._parts), bool)
        for part, mask in enumerate(masks):
            if mask is not None:
                own = self._parts == part
                allowed[own] = mask[self._rows[own]]
        found = []
        for number, scores in enumerate(self._bm25.scores(queries)):
            best = np.flatnonzero((scores > 0) & allowed) if len(scores) else np.empty(0, np.intp)
            best = best[np.argsort(-scores[best], kind="stable")[:depth]]
            if others is not None and others[number]:
                best = np.concatenate([best, self._positions(others[number])])
            places = zip(self._parts[best].tolist(), self._rows[best].tolist(), strict=True)
            found.append(dict(zip(places, scores[best].tolist(), strict=True)))
        return found

    def _positions(self, places: Collection[tuple[int, int]]) -> NDArray[np.intp]:
        parts, rows = np.array(list(places), np.int64).T
        return self._order[np.searchsorted(self._sorted, _keys(parts, rows))]


def _keys(parts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each place."""
    return (parts << 40) | rows

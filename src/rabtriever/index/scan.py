"""Exact search: the k largest inner products, in one pass over all vectors.

A product in float32 depends, in its last digits, on how many vectors it is computed beside. So the pass over all
vectors only chooses candidates, with a margin no smaller than its rounding error can be, and the candidates' scores are
computed again in float64, each by itself. Hits are therefore the same for one query and for many, whatever the order of
the rows; equal scores are ordered by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["best_of", "largest_norm", "top_k"]

_SCORES = 1 << 24
"""Scores held at once (64 MiB), which decides how many queries share a pass."""

_ROWS = 1 << 14
"""Rows converted to float64 at once."""

_GATHER = 8
"""Documents are copied out when fewer than one in this many takes part."""

_NONE = np.empty(0, np.intp)


def largest_norm(vectors: NDArray[np.float32]) -> float:
    """The largest Euclidean norm among the rows of ``vectors`` ``(n, k)``; NaN or infinite where a row is damaged.

    Example:
        >>> largest_norm(np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32))
        5.0
    """
    squares = [np.einsum("ij,ij->i", block, block).max() for block in _blocks(vectors)]
    return float(np.sqrt(np.max(squares))) if squares else 0.0


def top_k(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    ids: Sequence[str],
    *,
    norm: float,
    bias: float = 0.0,
    rows: NDArray[np.intp] | None = None,
    owner: NDArray[np.intp] | None = None,
) -> list[list[tuple[int, float]]]:
    """Find the ``k`` documents with the largest inner product for each query.

    Args:
        vectors: One vector for each document, and then further ones, ``(n + m, k)``.
        queries: One query per row, ``(q, k)``.
        k: How many documents to return, at least 1.
        ids: One id per document, which orders equal scores.
        norm: ``largest_norm(vectors)``.
        bias: Added to each product.
        rows: The documents that take part, all when left out.
        owner: The document of each further vector, ``(m,)``; a document's score is that of its best vector.

    Returns:
        For each query, pairs (document, score), best first; scores are exact products rounded to float32.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> top_k(vectors, np.array([[0.5, 2.0, 0.5]], dtype=np.float32), 2, ["a", "b", "c"], norm=1.0)
        [[(1, 2.0), (0, 0.5)]]
    """
    if owner is None:
        owner = _NONE
    count = len(vectors) - len(owner)
    if rows is not None and len(rows) * _GATHER < count:  # to copy a few vectors is cheaper than to multiply all
        place = np.full(count, -1, np.intp)
        place[rows] = np.arange(len(rows))
        kept = place[owner] >= 0
        few = np.concatenate([vectors[rows], vectors[count:][kept]])
        names = _Chosen(ids, rows)
        found = top_k(few, queries, k, names, norm=norm, bias=bias, owner=place[owner[kept]])
        return [[(int(rows[row]), score) for row, score in ranked] for ranked in found]
    group = max(1, _SCORES // max(1, len(vectors)))
    ranked_all = []
    for start in range(0, len(queries), group):
        products = queries[start : start + group] @ vectors.T  # (group, n + m)
        for query, scores in zip(queries[start : start + group], products, strict=True):
            if len(owner):
                np.maximum.at(scores, owner, scores[count:])
            chosen = _candidates(scores[:count] if rows is None else scores[rows], query, k, norm)
            candidates = chosen if rows is None else rows[chosen]
            ranked_all.append(best_of(vectors, query, candidates, k, ids, bias, owner))
    return ranked_all


def best_of(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    candidates: NDArray[np.intp],
    k: int,
    ids: Sequence[str],
    bias: float = 0.0,
    owner: NDArray[np.intp] | None = None,
) -> list[tuple[int, float]]:
    """The ``k`` best of some documents, by exact scores.

    Args:
        vectors: As for :func:`top_k`.
        query: One query, ``(k,)``.
        candidates: The documents to compare.
        k: How many to return.
        ids: One id per document.
        bias: Added to each product.
        owner: As for :func:`top_k`.

    Returns:
        Pairs (document, score), best first.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> best_of(vectors, np.array([3, 2, 1], dtype=np.float32), np.array([1, 2]), 1, ["a", "b", "c"])
        [(1, 2.0)]
    """
    exact = _products(vectors, candidates, query)
    if owner is not None and len(owner):
        place = np.full(len(vectors) - len(owner), -1, np.intp)
        place[candidates] = np.arange(len(candidates))
        further = np.flatnonzero(place[owner] >= 0)
        np.maximum.at(exact, place[owner[further]], _products(vectors, further + len(place), query))
    scores = (exact + bias).astype(np.float32).tolist()
    ranked = sorted(zip(scores, candidates.tolist(), strict=True), key=lambda pair: (-pair[0], ids[pair[1]]))
    return [(row, score) for score, row in ranked[:k]]


class _Chosen(Sequence[str]):
    """The ids of some documents, looked up when they are needed."""

    def __init__(self, ids: Sequence[str], rows: NDArray[np.intp]) -> None:
        self._ids, self._rows = ids, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # rows only
        return self._ids[int(self._rows[row])]


def _candidates(scores: NDArray[np.float32], query: NDArray[np.float32], k: int, norm: float) -> NDArray[np.intp]:
    """Positions in ``scores`` ``(n,)`` that hold every one of the true ``k`` best, ties at the border included."""
    if k >= len(scores):
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    # |computed - true| <= width * 2^-24 * |q| |x| in whatever order the products are summed. The true k-th best is at
    # most one such error below the computed one, and whatever beats it was computed at most one error lower still.
    error = 1.01 * len(query) * 2.0**-24 * float(np.linalg.norm(query.astype(np.float64))) * norm
    return np.flatnonzero(scores >= float(kth) - 2.0 * error)


def _products(vectors: NDArray[np.float32], rows: NDArray[np.intp], query: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = query.astype(np.float64)
    exact = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        block = vectors[rows[start : start + _ROWS]].astype(np.float64)
        exact[start : start + _ROWS] = np.einsum("ij,j->i", block, wide)  # row by row, unlike a BLAS product
    return exact


def _blocks(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS)]

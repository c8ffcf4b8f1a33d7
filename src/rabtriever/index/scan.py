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

__all__ = ["largest_norm", "top_k"]

_SCORES = 1 << 24
"""Scores held at once (64 MiB), which decides how many queries share a pass."""

_ROWS = 1 << 14
"""Rows converted to float64 at once."""


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
) -> list[list[tuple[int, float]]]:
    """Find the ``k`` rows with the largest inner product for each query.

    Args:
        vectors: The rows to search, ``(n, k)``.
        queries: One query per row, ``(m, k)``.
        k: How many rows to return, at least 1.
        ids: One id per row of ``vectors``, which orders equal scores.
        norm: ``largest_norm(vectors)``.
        bias: Added to each product.
        rows: The rows that take part, all when left out.

    Returns:
        For each query, pairs (row, score), best first; scores are exact products rounded to float32.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> top_k(vectors, np.array([[0.5, 2.0, 0.5]], dtype=np.float32), 2, ["a", "b", "c"], norm=1.0)
        [[(1, 2.0), (0, 0.5)]]
    """
    group = max(1, _SCORES // max(1, len(vectors)))
    found = []
    for start in range(0, len(queries), group):
        scores = queries[start : start + group] @ vectors.T  # (group, n)
        for query, row_scores in zip(queries[start : start + group], scores, strict=True):
            chosen = _candidates(row_scores if rows is None else row_scores[rows], query, k, norm)
            candidates = chosen if rows is None else rows[chosen]
            found.append(_best(vectors, query, candidates, k, ids, bias))
    return found


def _candidates(scores: NDArray[np.float32], query: NDArray[np.float32], k: int, norm: float) -> NDArray[np.intp]:
    """Positions in ``scores`` ``(n,)`` that hold every one of the true ``k`` best, ties at the border included."""
    if k >= len(scores):
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    # |computed - true| <= width * 2^-24 * |q| |x| in whatever order the products are summed. The true k-th best is at
    # most one such error below the computed one, and whatever beats it was computed at most one error lower still.
    error = 1.01 * len(query) * 2.0**-24 * float(np.linalg.norm(query.astype(np.float64))) * norm
    return np.flatnonzero(scores >= float(kth) - 2.0 * error)


def _best(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    candidates: NDArray[np.intp],
    k: int,
    ids: Sequence[str],
    bias: float,
) -> list[tuple[int, float]]:
    wide = query.astype(np.float64)
    exact = np.empty(len(candidates))
    for start in range(0, len(candidates), _ROWS):
        block = vectors[candidates[start : start + _ROWS]].astype(np.float64)
        exact[start : start + _ROWS] = np.einsum("ij,j->i", block, wide)  # row by row, unlike a BLAS product
    scores = (exact + bias).astype(np.float32).tolist()
    ranked = sorted(zip(scores, candidates.tolist(), strict=True), key=lambda pair: (-pair[0], ids[pair[1]]))
    return [(row, score) for score, row in ranked[:k]]


def _blocks(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS)]

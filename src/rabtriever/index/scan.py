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

from rabtriever.index.threads import in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["best_of", "largest_norm", "top_k"]

_SCORES = 1 << 24
"""Scores held at once (64 MiB), which decides how many queries share a pass."""

_ROWS = 1 << 14
"""Rows multiplied, or converted to float64, at once."""

_FEW_QUERIES = 4
"""Up to so many queries go over the vectors one by one, which memory bounds; more are a product of matrices."""

_GATHER = 5
"""Documents are fetched one by one when fewer than one in this many takes part."""

_TAKEN = 1 << 10
"""Vectors fetched at once."""

_BLOCK = 1 << 10
"""Scores of which the largest is looked at first."""

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
    taken, owners, there = None, owner, count
    if rows is not None and len(rows) * _GATHER < count:  # to fetch a few vectors is cheaper than to multiply all
        place = np.full(count, -1, np.intp)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[owner] >= 0)
        taken, owners, there = np.concatenate([rows, count + kept]), place[owner[kept]], len(rows)
    group = max(1, _SCORES // max(1, len(vectors) if taken is None else len(taken)))
    ranked_all = []
    for start in range(0, len(queries), group):
        some = queries[start : start + group]
        products = _all_products(vectors, some) if taken is None else _some_products(vectors, some, taken)
        for query, scores in zip(some, products, strict=True):
            if len(owners):
                np.maximum.at(scores, owners, scores[there:])
            compared = scores[:there] if rows is None or taken is not None else scores[rows]
            chosen = _candidates(compared, query, k, norm)
            ranked_all.append(best_of(vectors, query, chosen if rows is None else rows[chosen], k, ids, bias, owner))
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


def _all_products(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each query's products with all vectors, ``(q, n)``, as quickly as memory gives the vectors."""
    if len(queries) > _FEW_QUERIES:
        return queries @ vectors.T
    products = np.empty((len(queries), len(vectors)), np.float32)

    def multiply(start: int) -> None:  # BLAS does not keep the memory busy when one factor is a single row
        part = slice(start, start + _ROWS)
        for query, out in zip(queries, products, strict=True):
            np.einsum("ij,j->i", vectors[part], query, out=out[part])

    in_parallel(multiply, range(0, len(vectors), _ROWS))
    return products


def _some_products(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], taken: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Each query's products with some vectors, ``(q, len(taken))``, by way of a buffer that stays in the processor."""
    products = np.empty((len(queries), len(taken)), np.float32)
    buffer = np.empty((min(_TAKEN, len(taken)), vectors.shape[1]), np.float32)
    for start in range(0, len(taken), _TAKEN):
        part = taken[start : start + _TAKEN]
        found = np.take(vectors, part, axis=0, out=buffer[: len(part)], mode="clip")  # other modes make a copy first
        np.matmul(queries, found.T, out=products[:, start : start + len(part)])
    return products


def _candidates(scores: NDArray[np.float32], query: NDArray[np.float32], k: int, norm: float) -> NDArray[np.intp]:
    """Positions in ``scores`` ``(n,)`` that hold every one of the true ``k`` best, ties at the border included."""
    if k >= len(scores):
        return np.arange(len(scores))
    kth = _kth_largest(scores, k)
    # |computed - true| <= width * 2^-24 * |q| |x| in whatever order the products are summed. The true k-th best is at
    # most one such error below the computed one, and whatever beats it was computed at most one error lower still.
    error = 1.01 * len(query) * 2.0**-24 * float(np.linalg.norm(query.astype(np.float64))) * norm
    return np.flatnonzero(scores >= float(kth) - 2.0 * error)


def _kth_largest(scores: NDArray[np.float32], k: int) -> np.float32:
    """The ``k``-th largest number: at least ``k`` are no smaller than the ``k``-th largest of the blocks' maxima."""
    whole = len(scores) // _BLOCK
    if whole > k:
        maxima = scores[: whole * _BLOCK].reshape(whole, _BLOCK).max(axis=1)
        scores = scores[scores >= np.partition(maxima, whole - k)[whole - k]]
    return np.partition(scores, len(scores) - k)[len(scores) - k]  # type: ignore[no-any-return]


def _products(vectors: NDArray[np.float32], rows: NDArray[np.intp], query: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = query.astype(np.float64)
    exact = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        block = vectors[rows[start : start + _ROWS]].astype(np.float64)
        exact[start : start + _ROWS] = np.einsum("ij,j->i", block, wide)  # row by row, unlike a BLAS product
    return exact


def _blocks(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS)]

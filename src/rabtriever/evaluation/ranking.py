"""From scores to rankings, with ties that nobody profits from.

Evaluation tools break ties by document id or by the order of the input, so a system that gives every document the same
score can look good when right documents come first in a file. Here tied documents stand in a pseudo-random order that
depends on the query's id alone: repeatable, and in the mean over queries exactly as good as chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rabtriever.errors import RabtrieverError

__all__ = ["ranked", "top_k"]


def top_k(scores: NDArray[np.floating], k: int, key: str) -> NDArray[np.intp]:
    """Return the positions of the ``k`` highest scores, best first.

    Args:
        scores: ``(n,)``; no NaN.
        k: At most this many positions are returned.
        key: What the order of tied positions depends on; the query's id.

    Returns:
        ``(min(k, n),)`` positions.

    Raises:
        RabtrieverError: A score is NaN.

    Example:
        >>> top_k(np.array([0.1, 0.9, 0.5]), k=2, key="q1")
        array([1, 2])
    """
    if np.isnan(scores).any():
        raise RabtrieverError(f"a score for query {key!r} is not a number", hint="check the model's weights for NaN")
    seed = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    rng = np.random.default_rng(seed)
    count = min(k, len(scores))
    if count == len(scores):
        chosen = np.arange(count)
    else:
        border = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > border)
        tied = rng.permutation(np.flatnonzero(scores == border))
        chosen = np.concatenate([above, tied[: count - len(above)]])
    chosen = rng.permutation(chosen)
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def ranked(scores: Mapping[str, float], key: str) -> list[str]:
    """Return the document ids, best first; the order of the mapping does not matter.

    Raises:
        RabtrieverError: A score is NaN.

    Example:
        >>> ranked({"d1": 0.1, "d2": 0.9}, key="q1")
        ['d2', 'd1']
    """
    ids = sorted(scores)
    values = np.array([scores[document] for document in ids], dtype=np.float64)
    return [ids[position] for position in top_k(values, len(ids), key)]

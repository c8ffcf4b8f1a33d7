"""The fusion of rankings by the reciprocals of their ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["fuse"]

_RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): the first few ranks count for nearly the same."""

Item = TypeVar("Item")


def fuse(rankings: Sequence[Sequence[Item]], scores: Mapping[Item, float]) -> list[Item]:
    """Everything that some ranking holds, by the sum of ``1 / (60 + rank)`` over the rankings that hold it.

    Args:
        rankings: Rankings, best first.
        scores: Order items of equal sums, the largest first.

    Example:
        >>> fuse([["a", "b"], ["c", "b"]], {"a": 1.0, "b": 0.0, "c": 2.0})
        ['b', 'c', 'a']
    """
    sums: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            sums[item] = sums.get(item, 0.0) + 1.0 / (_RANK_OFFSET + rank)
    return sorted(sums, key=lambda item: (-sums[item], -scores[item]))

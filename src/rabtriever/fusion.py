"""The fusion of what the student and BM25 say of the same documents.

The student's score is the log-odds that a document answers the query. BM25 grew out of the same quantity: a sum, over
the words that both share, of log-odds that a relevant document holds the word (Robertson and Sparck Jones 1976). So the
two may be added. What they know overlaps, for the student reads the words too, hence a weight below 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from reprlib import repr as brief
from typing import Literal, TypeVar, cast

from rabtriever.errors import InputError

__all__ = ["BM25_WEIGHT", "Fusion", "Hybrid", "checked_hybrid", "fuse_ranks", "fuse_scores", "parse_hybrid"]

Hybrid = bool | float | Literal["ranks"]
"""Whether BM25 takes part: no; yes, with the usual weight; with a weight of its own; or by reciprocal ranks."""

Fusion = float | Literal["ranks"]
"""The same, checked: a weight, of which 0 leaves BM25 out, or reciprocal ranks."""

BM25_WEIGHT = 0.5
"""Of BM25's score beside the log-odds. On dev, 0.3 is best where words say little and 1 where they say much."""

_RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): the first few ranks count for nearly the same."""

Item = TypeVar("Item")


def checked_hybrid(hybrid: Hybrid) -> Fusion:
    """How to fuse, from what a caller said.

    Raises:
        InputError: It is neither a truth value, nor a number of at least 0, nor ``"ranks"``.

    Example:
        >>> checked_hybrid(True), checked_hybrid(False), checked_hybrid(0.3)
        (0.5, 0.0, 0.3)
    """
    if isinstance(hybrid, bool):
        return BM25_WEIGHT if hybrid else 0.0
    if hybrid == "ranks":
        return "ranks"
    if isinstance(hybrid, int | float) and math.isfinite(hybrid) and hybrid >= 0:
        return float(hybrid)
    raise InputError(
        f"hybrid must be true, false, BM25's weight (0 or more) or 'ranks', found {brief(hybrid)}",
        hint=f"true is a weight of {BM25_WEIGHT}",
    )


def parse_hybrid(text: str) -> Fusion:
    """How to fuse, from what was typed: a weight or ``ranks``.

    Raises:
        InputError: It is neither.

    Example:
        >>> parse_hybrid("0.3"), parse_hybrid("ranks")
        (0.3, 'ranks')
    """
    try:
        return checked_hybrid(float(text))
    except ValueError:
        return checked_hybrid(cast("Hybrid", text))


def fuse_scores(student: Mapping[Item, float], words: Mapping[Item, float], weight: float) -> list[Item]:
    """Everything that the student has scored, by ``log-odds + weight * BM25``; of equals, the student's first.

    Args:
        student: Log-odds.
        words: BM25's scores; what is missing shares no word with the query.
        weight: Of BM25's score.

    Example:
        >>> fuse_scores({"a": 1.0, "b": 0.5, "c": -3.0}, {"b": 2.0, "c": 4.0}, weight=0.5)
        ['b', 'a', 'c']
    """
    return sorted(student, key=lambda item: (-(student[item] + weight * words.get(item, 0.0)), -student[item]))


def fuse_ranks(rankings: Sequence[Sequence[Item]], scores: Mapping[Item, float]) -> list[Item]:
    """Everything that some ranking holds, by the sum of ``1 / (60 + rank)`` over the rankings that hold it.

    Args:
        rankings: Rankings, best first.
        scores: Order items of equal sums, the largest first.

    Example:
        >>> fuse_ranks([["a", "b"], ["c", "b"]], {"a": 1.0, "b": 0.0, "c": 2.0})
        ['b', 'c', 'a']
    """
    sums: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            sums[item] = sums.get(item, 0.0) + 1.0 / (_RANK_OFFSET + rank)
    return sorted(sums, key=lambda item: (-sums[item], -scores[item]))

"""Whether one system is better than another on the same queries, or only luckier.

Two answers to the same question, both from the differences query by query: a two-sided randomisation test (how often
would a difference this large arise if it were a coin toss which of the two systems produced which value), and a
bootstrap interval for the mean difference. See Smucker, Allan and Carterette, CIKM 2007.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rabtriever.errors import InputError

__all__ = ["Difference", "paired_difference"]

_BLOCK = 1000  # resamples at a time; bounds the memory


@dataclass(frozen=True, slots=True)
class Difference:
    """How two systems differ on the queries they share.

    Args:
        queries: How many queries they share.
        a_mean: Mean of the first system.
        b_mean: Mean of the second system.
        difference: ``a_mean - b_mean``.
        low: Lower end of the 95 % bootstrap interval of the difference.
        high: Upper end.
        p: p-value of the two-sided paired randomisation test.
    """

    queries: int
    a_mean: float
    b_mean: float
    difference: float
    low: float
    high: float
    p: float


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Difference:
    """Compare two systems on the queries they share.

    Args:
        a: Query id -> value, of the first system.
        b: Query id -> value, of the second system.
        seed: Of the resampling.
        resamples: How many resamples each of the test and the interval takes.

    Raises:
        InputError: The systems share no query.

    Example:
        >>> result = paired_difference({"q1": 1.0, "q2": 1.0}, {"q1": 0.0, "q2": 1.0})
        >>> result.difference, result.p
        (0.5, 1.0)
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise InputError("the two systems share no query", hint="evaluate them on the same split, limit and seed")
    first = np.array([a[query] for query in shared], dtype=np.float64)
    second = np.array([b[query] for query in shared], dtype=np.float64)
    # Rounding makes equal differences equal; few distinct values are left, and resampling their counts is the same as
    # resampling the queries, only faster.
    differences = np.round(first - second, 12)
    rng = np.random.default_rng(seed)
    low, high = _interval(differences, rng, resamples)
    return Difference(
        queries=len(shared),
        a_mean=float(first.mean()),
        b_mean=float(second.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=_p_value(differences, rng, resamples),
    )


def _p_value(differences: NDArray[np.float64], rng: np.random.Generator, resamples: int) -> float:
    """Turn the sign of every difference at random; count how often the sum is as far from 0 as the one observed."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = abs(differences.sum())
    extreme = 0
    for block in _blocks(resamples):
        positive = rng.binomial(counts, 0.5, size=(block, len(counts)))  # of each size, how many turn out positive
        sums = (2 * positive - counts) @ sizes
        extreme += int((np.abs(sums) >= observed - 1e-9).sum())
    return (1 + extreme) / (1 + resamples)  # the observed signs are one of the possible ones


def _interval(differences: NDArray[np.float64], rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Draw as many queries as there are, with replacement, again and again; the middle 95 % of the means."""
    values, counts = np.unique(differences, return_counts=True)
    total = len(differences)
    means = [rng.multinomial(total, counts / total, size=block) @ values / total for block in _blocks(resamples)]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _blocks(resamples: int) -> list[int]:
    return [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]

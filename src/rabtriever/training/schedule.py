"""How the learning rate of stage III's trainings rises and falls."""

from __future__ import annotations

import math

__all__ = ["warm_cosine"]


def warm_cosine(step: int, total: int, warmup: float) -> float:
    """The share of the peak rate at a step of ``total``: a linear warm-up, then half a cosine to zero.

    Args:
        step: Counted from 0.
        total: Steps of the whole training.
        warmup: Share of the steps that warm up; one step at least does.

    Example:
        >>> [round(warm_cosine(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(warmup * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

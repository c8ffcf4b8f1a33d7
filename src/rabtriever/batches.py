"""Which texts to compute together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["token_batches"]


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split rows, in the given order, into batches of at most ``budget`` padded tokens (one row at least).

    Example:
        >>> list(token_batches([2, 3, 9, 1], budget=6))
        [[0, 1], [2], [3]]
    """
    batch: list[int] = []
    longest = 0
    for row, length in enumerate(lengths):
        if batch and max(longest, length) * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], 0
        batch.append(row)
        longest = max(longest, length)
    if batch:
        yield batch

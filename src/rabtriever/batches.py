"""Which texts to compute together, and what of them to compute once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["common_start", "continuation_batches", "token_batches"]

_WORTH = 8
"""So many tokens in common, of so many sequences, are worth a pass of their own."""


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


def continuation_batches(
    before: Sequence[int], lengths: Sequence[int], budget: int, window: int | None
) -> Iterator[list[int]]:
    """``token_batches`` of sequences that go on behind others of ``before`` tokens.

    Where one reaches beyond a sliding ``window``, only those behind equally many tokens are kept together: a gap
    between a shorter text and what follows it would shift the window.

    Example:
        >>> list(continuation_batches([5, 4, 4], [2, 2, 2], budget=99, window=6))
        [[0], [1, 2]]
    """
    for rows in token_batches(lengths, budget):
        if window is None or max(before[r] for r in rows) + max(lengths[r] for r in rows) <= window:
            yield rows
            continue
        run: list[int] = []
        for row in rows:
            if run and before[row] != before[run[0]]:
                yield run
                run = []
            run.append(row)
        yield run


def common_start(ids: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences start with, where reading these once is worth the while; each keeps one at least.

    Example:
        >>> common_start([[1, 2, 3, 4, 5, 6, 7, 8, 9, n] for n in range(8)])
        9
        >>> common_start([[1, 2], [1, 3]])
        0
    """
    if len(ids) < _WORTH:
        return 0
    first, last = min(ids, key=list), max(ids, key=list)  # what these two share, all between them share
    most = min(map(len, ids)) - 1
    count = next((i for i in range(most) if first[i] != last[i]), most)
    return count if count >= _WORTH else 0

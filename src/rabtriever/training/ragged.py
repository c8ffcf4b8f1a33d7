"""Lists of unequal lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Ragged"]


class Ragged:
    """Lists of positions, of any lengths, in one tensor: many of them are taken without a loop over each.

    Args:
        lists: The lists.

    Attributes:
        values: All positions, list after list, ``(n,)``.

    Example:
        >>> lists = Ragged([[4, 5], [], [6]])
        >>> places, owner = lists.take(torch.tensor([2, 0]))
        >>> lists.values[places].tolist(), owner.tolist()
        ([6, 4, 5], [0, 1, 1])
    """

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.values = torch.tensor([i for positions in lists for i in positions], dtype=torch.long)
        self._counts = torch.tensor([len(positions) for positions in lists], dtype=torch.long)
        self._starts = self._counts.cumsum(0) - self._counts

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where in ``values`` the positions of lists ``(b,)`` stand, and which of ``rows`` each belongs to."""
        counts = self._counts[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), counts)
        first = self._starts[rows] - (counts.cumsum(0) - counts)
        return torch.arange(len(owner)) + first[owner], owner

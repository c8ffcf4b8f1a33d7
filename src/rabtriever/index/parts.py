"""The documents of a version, in parts that are searched one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.index.segment import Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Part", "ascends", "few"]


@dataclass(frozen=True, slots=True)
class Part:
    """The documents of a segment that one version holds.

    Attributes:
        segment: The segment.
        rows: Its documents that take part, ``(n,)``, in the order of the segment.
        numbers: Lance's row number of every document of the segment, in this version; 0 for those that do not.
    """

    segment: Segment
    rows: NDArray[np.intp]
    numbers: NDArray[np.uint64]

    @property
    def whole(self) -> bool:
        """Whether every document takes part."""
        return len(self.rows) == len(self.segment)


def ascends(rows: NDArray[np.intp]) -> bool:
    """Whether each number is larger than the one before.

    Example:
        >>> ascends(np.array([1, 4, 5])), ascends(np.array([1, 4, 4]))
        (True, False)
    """
    return bool((rows[1:] > rows[:-1]).all())


def few(parts: list[Part]) -> list[Part]:
    """The same documents in two parts at most, the larger first: many small ones would make searching slow."""
    parts = sorted(parts, key=lambda part: -len(part.rows))
    if len(parts) == 2 and len(parts[1].rows) * 4 > len(parts[0].rows) and parts[0].segment.accelerator is None:
        return [_joined(parts)]
    return parts if len(parts) <= 2 else [parts[0], _joined(parts[1:])]


def _joined(parts: list[Part]) -> Part:
    segment = Segment.join([(part.segment, part.rows) for part in parts])
    numbers = np.concatenate([part.numbers[part.rows] for part in parts])
    return Part(segment, np.arange(len(segment)), numbers)

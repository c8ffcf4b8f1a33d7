"""Documents that have been read: what a causal model keeps of them, for any query that follows (Eq. 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Prefix", "side_by_side"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A document, read: its keys and values in every layer, and its last hidden state ``e_D``.

    Attributes:
        states: ``(layers, 2, heads, L_D, d_head)``, keys before values.
        last: ``e_D``, ``(d,)`` float32.
    """

    states: Tensor
    last: Tensor

    @property
    def length(self) -> int:
        """``L_D`` in tokens."""
        return self.states.shape[3]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.states.nbytes + self.last.nbytes


def side_by_side(prefixes: Sequence[Prefix]) -> Tensor:
    """Keys and values of prefixes in one batch, ``(layers, 2, n, heads, L, d_head)``, padded at the end."""
    first, count = prefixes[0].states, len(prefixes)
    if all(prefix is prefixes[0] for prefix in prefixes):
        return first[:, :, None].expand(-1, -1, count, -1, -1, -1)
    layers, pair, heads, _, size = first.shape
    states = first.new_zeros(layers, pair, count, heads, max(prefix.length for prefix in prefixes), size)
    for row, prefix in enumerate(prefixes):
        states[:, :, row, :, : prefix.length] = prefix.states
    return states

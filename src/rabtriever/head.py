"""The two rows of the language head that scoring needs: all of ``H`` that a score depends on (Eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["AnswerRows"]


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """The two rows of the head that scoring needs.

    Attributes:
        weight: ``w_T`` and ``w_F``, ``(2, d)`` float32.
        bias: ``b_T`` and ``b_F``, ``(2,)``; zeros where the head has none.
        scale: What the family multiplies its logits by.
    """

    weight: Tensor
    bias: Tensor
    scale: float

    @property
    def direction(self) -> Tensor:
        """``scale * (w_T - w_F)``, ``(d,)``: the log-odds are its inner product with a state, plus ``offset``."""
        return self.scale * (self.weight[0] - self.weight[1])

    @property
    def offset(self) -> float:
        """``scale * (b_T - b_F)``: constant, so it never changes a ranking."""
        return self.scale * float(self.bias[0] - self.bias[1])

    def logits(self, states: Tensor) -> Tensor:
        """``(z_T, z_F)`` of hidden states ``(n, d)``, as ``(n, 2)``, before any soft-cap."""
        return self.scale * (states @ self.weight.T + self.bias)

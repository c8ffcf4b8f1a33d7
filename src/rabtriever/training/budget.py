"""How long a training may take: so many minutes, or so many tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rabtriever.errors import InputError

__all__ = ["Budget"]

_TIMES = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_COUNTS = {"": 1, "k": 1_000, "M": 1_000_000}


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on stage I.

    Attributes:
        seconds: Wall-clock seconds, or None.
        tokens: Trained tokens (padding not counted), or None.

    Example:
        >>> Budget.parse("20m").seconds, Budget.parse("500k").tokens
        (1200.0, 500000)
    """

    seconds: float | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``90s``, ``20m``, ``2h``, or ``500k`` and ``2M`` tokens.

        Raises:
            InputError: If it is none of these.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*?)(?:\s*tokens)?\s*", text)
        if match and float(match[1]) > 0:
            amount, unit = float(match[1]), match[2]
            if unit in _TIMES and "tokens" not in text:
                return cls(seconds=amount * _TIMES[unit])
            if unit in _COUNTS:
                return cls(tokens=max(1, int(amount * _COUNTS[unit])))
        raise InputError(
            f"{text!r} is not a budget", hint="give minutes such as 20m, 90s or 2h, or tokens such as 500k or 2M"
        )

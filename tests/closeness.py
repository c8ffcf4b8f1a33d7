"""When two computations of the same numbers agree: up to the rounding of float32, relative to the largest of them."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE = 2e-5
"""Of the largest number compared. The largest difference seen, over all families and identities, is 2e-6 of it; a wrong
mask, position or row shows in the first digit."""


def assert_same(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Fail if arrays or tensors differ by more than rounding, or if their numbers are too small to prove anything."""
    left, right = (np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64) for x in (found, expected))
    assert left.shape == right.shape
    size = np.abs(right).max()
    assert size > 0.05, "degenerate numbers prove nothing"
    worst = np.abs(left - right).max()
    assert worst <= tolerance * size, f"they differ by {worst / size:.1e} of the largest number"

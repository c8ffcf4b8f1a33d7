"""Budgets as people write them."""

from __future__ import annotations

import pytest

from rabtriever.errors import InputError
from rabtriever.training.budget import Budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Budget(seconds=90)),
        ("20m", Budget(seconds=1200)),
        (" 20 min ", Budget(seconds=1200)),
        ("1.5h", Budget(seconds=5400)),
        ("500k", Budget(tokens=500_000)),
        ("2M", Budget(tokens=2_000_000)),
        ("0.5M tokens", Budget(tokens=500_000)),
        ("1234", Budget(tokens=1234)),
    ],
)
def test_what_is_read(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-5m", "five", "20x", "20m tokens", "1e3", "m", "2 hours", "nan", "1..5m"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match="is not a budget") as caught:
        Budget.parse(text)
    assert "20m" in caught.value.hint

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.errors import RabtrieverError
from rabtriever.evaluation.ranking import ranked, top_k


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 40), st.text(max_size=5))
def test_the_best_come_first(values: list[int], k: int, key: str) -> None:
    scores = np.array(values, dtype=np.float32)
    positions = top_k(scores, k, key)
    assert sorted(values, reverse=True)[:k] == scores[positions].tolist()
    assert len(set(positions.tolist())) == len(positions)
    assert positions.tolist() == top_k(scores, k, key).tolist()


def test_infinities_are_scores() -> None:
    assert top_k(np.array([-np.inf, np.inf, 0.0]), 2, "q").tolist() == [1, 2]


def test_nan_is_refused() -> None:
    with pytest.raises(RabtrieverError, match="score for query 'q7' is not a number"):
        top_k(np.array([0.0, np.nan]), 1, "q7")


@pytest.mark.parametrize("k", [1, 4, 8])
def test_ties_favour_no_position(k: int) -> None:
    firsts = Counter(int(top_k(np.zeros(8), k, f"q{i}")[0]) for i in range(1600))
    assert all(140 < firsts[position] < 260 for position in range(8))


def test_ties_do_not_depend_on_the_order_of_the_mapping() -> None:
    documents = [f"d{i}" for i in range(20)]
    assert ranked(dict.fromkeys(documents, 1.0), "q") == ranked(dict.fromkeys(reversed(documents), 1.0), "q")

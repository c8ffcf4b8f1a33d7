"""Stamps are found wherever they stand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.index import segment as module
from rabtriever.index.segment import Segment


def _segment(stamps: np.ndarray) -> Segment:
    names = pa.array([str(stamp) for stamp in stamps], pa.string())
    vectors = np.zeros((len(stamps), 1), np.float32)
    return Segment(stamps, names, names.cast(pa.large_string()), vectors, np.empty(0, np.intp))


@given(st.lists(st.integers(0, 60), unique=True), st.lists(st.integers(0, 60), unique=True), st.booleans())
def test_stamps_are_found(own: list[int], asked: list[int], sort: bool) -> None:
    own, asked = (sorted(own), sorted(asked)) if sort else (own, asked)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_FOUND", 4)
        rows, there = _segment(np.array(own, np.uint64)).find(np.array(asked, np.uint64))
    assert there.tolist() == [stamp in own for stamp in asked]
    assert [own[row] for row in rows[there]] == [stamp for stamp in asked if stamp in own]


def test_some_are_gone_and_some_are_new() -> None:
    own = np.arange(100_000, dtype=np.uint64) * np.uint64(3)
    asked = np.concatenate([np.delete(own, [5, 20_000, 99_999]), np.arange(7, dtype=np.uint64) + np.uint64(400_000)])
    rows, there = _segment(own).find(asked)
    assert there.tolist() == [True] * 99_997 + [False] * 7
    assert rows[there].tolist() == np.delete(np.arange(100_000), [5, 20_000, 99_999]).tolist()

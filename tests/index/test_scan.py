from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.index import scan
from rabtriever.index.scan import largest_norm, top_k


def _plain(
    vectors: np.ndarray, query: np.ndarray, k: int, ids: list[str], bias: float = 0.0
) -> list[tuple[int, float]]:
    exact = (vectors.astype(np.float64) @ query.astype(np.float64) + bias).astype(np.float32)
    return sorted(((row, float(exact[row])) for row in range(len(ids))), key=lambda p: (-p[1], ids[p[0]]))[:k]


def _llm_like(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """A few huge dimensions, a common mean and log-normal norms, as frozen hidden states have."""
    vectors = rng.standard_normal((n, width)) * rng.lognormal(0, 0.5, (n, 1)) + rng.standard_normal(width)
    vectors[:, :3] *= 100
    return vectors.astype(np.float32)


@pytest.mark.parametrize("n", [1, 9, 10, 11, 3000])
def test_equals_the_plain_computation(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors, queries = _llm_like(rng, n, 48), _llm_like(rng, 7, 48)
    ids = [f"d{i}" for i in rng.permutation(n)]
    found = top_k(vectors, queries, 10, ids, norm=largest_norm(vectors), bias=-0.5)
    assert found == [_plain(vectors, query, 10, ids, -0.5) for query in queries]


def test_one_query_equals_the_same_among_many_and_rows_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = _llm_like(rng, 2000, 33), _llm_like(rng, 20, 33)
    ids = [f"d{i}" for i in range(2000)]
    norm = largest_norm(vectors)
    together = top_k(vectors, queries, 10, ids, norm=norm)
    assert together == [top_k(vectors, query[None], 10, ids, norm=norm)[0] for query in queries]
    monkeypatch.setattr(scan, "_SCORES", 3 * 2000)
    monkeypatch.setattr(scan, "_ROWS", 7)
    assert together == top_k(vectors, queries, 10, ids, norm=largest_norm(vectors))
    order = rng.permutation(2000)
    moved = top_k(np.ascontiguousarray(vectors[order]), queries, 10, [ids[i] for i in order], norm=norm)
    assert [[(int(order[row]), score) for row, score in found] for found in moved] == together


def test_equal_scores_are_ordered_by_id_even_at_the_border() -> None:
    vectors = np.tile(np.random.default_rng(0).standard_normal(100).astype(np.float32), (500, 1))
    ids = [f"d{i:03}" for i in np.random.default_rng(1).permutation(500)]
    found = top_k(vectors, vectors[:1], 5, ids, norm=largest_norm(vectors))[0]
    assert [ids[row] for row, _ in found] == ["d000", "d001", "d002", "d003", "d004"]


def test_only_the_given_rows_take_part() -> None:
    rng = np.random.default_rng(0)
    vectors, query = _llm_like(rng, 300, 16), _llm_like(rng, 1, 16)
    ids = [f"d{i}" for i in range(300)]
    rows = np.arange(1, 300, 7)
    found = top_k(vectors, query, 5, ids, norm=largest_norm(vectors), rows=rows)[0]
    expected = _plain(vectors[rows], query[0], 5, [ids[i] for i in rows])
    assert found == [(int(rows[row]), score) for row, score in expected]
    assert top_k(vectors, query, 5, ids, norm=1.0, rows=rows[:0]) == [[]]


@given(st.data())
def test_no_true_best_is_lost_where_scores_nearly_cancel(data: st.DataObject) -> None:
    """Sums of huge terms of both signs: float32 alone ranks these wrongly."""
    n, width, k = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors = (rng.standard_normal((n, width)) * 10.0 ** rng.integers(-4, 5, (n, width))).astype(np.float32)
    query = (rng.standard_normal((1, width)) * 10.0 ** rng.integers(-4, 5, (1, width))).astype(np.float32)
    ids = [f"d{i}" for i in range(n)]
    found = top_k(vectors, query, k, ids, norm=largest_norm(vectors))[0]
    assert [score for _, score in found] == [score for _, score in _plain(vectors, query[0], k, ids)]


def test_largest_norm_shows_damage() -> None:
    vectors = np.ones((5, 4), np.float32)
    assert largest_norm(vectors) == 2.0
    assert largest_norm(vectors[:0]) == 0.0
    vectors[3, 2] = np.nan
    assert not np.isfinite(largest_norm(vectors))


@pytest.mark.parametrize("queries", [1, scan._FEW_QUERIES, scan._FEW_QUERIES + 1])
@pytest.mark.parametrize("share", [None, 0.05, 0.6])
def test_many_vectors_in_several_threads(queries: int, share: float | None) -> None:
    """More vectors than one thread takes at a time, of which two in three are first ones."""
    rng = np.random.default_rng(0)
    count, more, k = 2 * scan._ROWS, scan._ROWS + 77, 12
    vectors = rng.standard_normal((count + more, 5)).astype(np.float32)
    asked = rng.standard_normal((queries, 5)).astype(np.float32)
    owner = np.sort(rng.integers(0, count, more))
    rows = None if share is None else np.flatnonzero(rng.random(count) < share)
    ids = [str(i) for i in range(count)]
    found = top_k(vectors, asked, k, ids, norm=largest_norm(vectors), rows=rows, owner=owner)
    products = asked.astype(np.float64) @ vectors.astype(np.float64).T
    for scores, ranked in zip(products, found, strict=True):
        np.maximum.at(scores, owner, scores[count:])
        part = np.arange(count) if rows is None else rows
        best = part[np.argsort(-scores[part])[:k]]
        assert [row for row, _ in ranked] == best.tolist()
        np.testing.assert_allclose([score for _, score in ranked], scores[best], rtol=1e-6)


@given(st.integers(1, 5000), st.integers(0, 2**32), st.data())
def test_the_kth_largest(count: int, seed: int, data: st.DataObject) -> None:
    scores = np.random.default_rng(seed).integers(0, 50, count).astype(np.float32)  # with many equal ones
    k = data.draw(st.integers(1, count))
    assert scan._kth_largest(scores, k) == np.sort(scores)[-k]

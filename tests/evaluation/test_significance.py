from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rabtriever.errors import InputError
from rabtriever.evaluation.significance import paired_difference


def scores(values: object) -> dict[str, float]:
    return {f"q{i}": float(v) for i, v in enumerate(values)}  # type: ignore[arg-type, var-annotated]


def test_the_mean_is_over_the_shared_queries_alone() -> None:
    result = paired_difference({"a": 1.0, "b": 0.5, "c": 9.0}, {"a": 0.0, "b": 0.5, "d": 9.0})
    assert (result.queries, result.a_mean, result.b_mean, result.difference) == (2, 0.75, 0.25, 0.5)


def test_equal_systems() -> None:
    result = paired_difference(scores([1, 0, 0.5]), scores([1, 0, 0.5]))
    assert (result.difference, result.low, result.high, result.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_sure_difference() -> None:
    result = paired_difference(scores([1] * 12), scores([0] * 12))
    assert (result.low, result.high) == (1.0, 1.0)
    assert result.p == pytest.approx(2 * 0.5**12, abs=5e-4)  # all signs alike, one way or the other


def test_sides_can_be_swapped() -> None:
    rng = np.random.default_rng(1)
    a, b = scores(rng.random(40)), scores(rng.random(40))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == -back.difference
    assert there.p == back.p
    assert there.low == pytest.approx(-back.high, abs=0.01)


@pytest.mark.parametrize("graded", [False, True])
def test_as_scipy_finds(graded: bool) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(120), rng.random(120) - 0.06
    if not graded:
        a, b = a > 0.5, b > 0.5
    result = paired_difference(scores(a), scores(b))
    difference = a.astype(float) - b.astype(float)
    test = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=5000, vectorized=True, rng=rng
    )
    interval = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=5000, rng=rng)
    assert result.p == pytest.approx(test.pvalue, abs=0.03)
    assert result.low == pytest.approx(interval.confidence_interval.low, abs=0.01)
    assert result.high == pytest.approx(interval.confidence_interval.high, abs=0.01)


def test_the_seed_decides() -> None:
    a, b = scores([1, 0, 1, 1, 0.5]), scores([0, 0, 1, 0.2, 0])
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)


def test_no_shared_query() -> None:
    with pytest.raises(InputError, match="share no query"):
        paired_difference({"a": 1.0}, {"b": 1.0})

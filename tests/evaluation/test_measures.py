from __future__ import annotations

import math

import pytest

from rabtriever.evaluation.measures import MEASURES, measure


def test_one_relevant_document() -> None:
    values = measure({"q1": {"d": 1}, "q2": {"d": 1}, "q3": {"d": 1}}, {
        "q1": ["d", "a", "b"],
        "q2": ["a", "b", "c", "d"],
        "q3": [*"abcefghijk", "d"],
    })  # fmt: skip
    assert tuple(values) == MEASURES
    assert values["R@1"] == values["hit@1"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert values["R@3"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert values["R@5"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert values["MRR@10"] == {"q1": 1.0, "q2": 0.25, "q3": 0.0}
    assert values["nDCG@10"] == pytest.approx({"q1": 1.0, "q2": 1 / math.log2(5), "q3": 0.0})


def test_several_relevant_documents_and_grades() -> None:
    values = measure({"q": {"a": 3, "b": 1, "c": 0, "z": 1}}, {"q": ["c", "b", "a"]})
    assert (values["R@1"]["q"], values["R@3"]["q"], values["hit@1"]["q"]) == (0.0, pytest.approx(2 / 3), 0.0)
    assert values["MRR@10"]["q"] == 0.5
    ideal = 3 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@10"]["q"] == pytest.approx((1 / math.log2(3) + 3 / math.log2(4)) / ideal)


def test_queries_without_a_ranking_count_as_zero() -> None:
    values = measure({"q1": {"d": 1}, "q2": {"d": 1}}, {"q1": []})
    assert all(per_query == {"q1": 0.0, "q2": 0.0} for per_query in values.values())


def test_values_are_plain_floats() -> None:
    assert {type(v) for values in measure({"q": {"d": 1}}, {"q": ["d"]}).values() for v in values.values()} == {float}

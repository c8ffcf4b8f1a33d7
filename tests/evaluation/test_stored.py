"""Reports read back are what was saved; joined ones compare what was measured on different days."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.test_evaluate import DATASET, Fake
from rabtriever.errors import DataError, InputError
from rabtriever.evaluation import evaluate, join_reports, load_report


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    report = evaluate({"student": Fake(2), "teacher": Fake(1, pairwise=True)}, DATASET, teacher_limit=10)
    report.save(tmp_path / "report.json")
    assert load_report(tmp_path / "report.json").to_dict(per_query=True) == report.to_dict(per_query=True)


def test_what_was_measured_apart_is_compared_as_if_together() -> None:
    together = evaluate({"student": Fake(2), "teacher": Fake(1, True), "bm25": Fake(3)}, DATASET, teacher_limit=10)
    earlier = evaluate({"student": Fake(5), "teacher": Fake(1, True)}, DATASET, teacher_limit=10)
    joined = join_reports(evaluate({"student": Fake(2), "bm25": Fake(3)}, DATASET), earlier)
    assert list(joined.systems) == ["student", "bm25", "teacher"]  # the new student's figures, not the earlier one's
    assert joined.retention == together.retention
    found = {(a, b, measure): difference for a, b, measure, difference in joined.comparisons}
    for a, b, measure, difference in together.comparisons:
        if (a, b) != ("teacher", "bm25"):  # stands there the other way round
            assert found[a, b, measure] == difference
    assert found["bm25", "teacher", "R@1"].queries == 10


@pytest.mark.parametrize("options", [{"seed": 1}, {"split": "other"}])
def test_reports_about_other_things_are_not_joined(options: dict[str, object], tmp_path: Path) -> None:
    report = evaluate({"bm25": Fake(1)}, DATASET)
    report.save(tmp_path / "earlier.json")
    changed = json.loads((tmp_path / "earlier.json").read_text()) | options
    (tmp_path / "earlier.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=f"about another {next(iter(options))}"):
        join_reports(report, load_report(tmp_path / "earlier.json"))


def test_other_queries_are_not_joined() -> None:
    few = evaluate({"a": Fake(1)}, DATASET, limit=1)
    answered = next(iter(few.systems["a"].queries))
    others = evaluate({"b": Fake(1)}, DATASET)
    for values in others.systems["b"].per_query.values():
        values.pop(answered)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="answered none of the queries"):
        join_reports(few, others)


@pytest.mark.parametrize("content", ["[]", "{}", '{"systems": {"a": {}}, "per_query": {}}', '{"systems": 3}', "null"])
def test_what_is_no_report_is_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json is not a report"):
        load_report(tmp_path / "x.json")

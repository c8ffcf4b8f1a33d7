from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rabtriever.data import Dataset, Document, Query
from rabtriever.errors import DataError, InputError, RabtrieverError
from rabtriever.evaluation import MEASURES, Bm25System, Report, evaluate
from rabtriever.progress import PlainProgress

DATASET = Dataset(
    "toy",
    corpus={f"d{i}": Document(f"d{i}", f"text {i}") for i in range(8)},
    queries={f"q{i}": Query(f"q{i}", str(i % 8)) for i in range(40)},
    qrels={"test": {f"q{i}": {f"d{i % 8}": 1} for i in range(40)}, "empty": {"q1": {"d1": 0}}},
)


class Fake:
    """Puts the right document at a given place; place 0 makes all scores equal."""

    def __init__(self, place: int, pairwise: bool = False) -> None:
        self.name = f"right document at place {place}"
        self.pairwise = pairwise
        self.place = place
        self.prepared = 0
        self.asked: list[list[str]] = []

    def prepare(self, corpus: Mapping[str, Document], progress: Any = None) -> None:
        self.prepared += 1

    def rank(self, queries: Sequence[Query], corpus: Mapping[str, Document], k: int) -> dict[str, dict[str, float]]:
        self.asked.append([query.id for query in queries])
        return {query.id: self._scores(query, corpus) for query in queries}

    def _scores(self, query: Query, corpus: Mapping[str, Document]) -> dict[str, float]:
        right = f"d{query.text}"
        if self.place == 0:
            return dict.fromkeys([right, *corpus], 1.0)
        order = [document for document in corpus if document != right]
        order.insert(self.place - 1, right)
        return {document: -float(rank) for rank, document in enumerate(order)}


def test_measures_and_layout_of_the_report() -> None:
    report = evaluate({"first": Fake(1), "third": Fake(3)}, DATASET)
    result = report.to_dict()
    assert {key: result[key] for key in ("dataset", "split", "queries")} == {
        "dataset": "toy",
        "split": "test",
        "queries": 40,
    }
    first, third = result["systems"]["first"], result["systems"]["third"]
    assert {m: first[m] for m in MEASURES} == dict.fromkeys(MEASURES, 1.0)
    assert (third["R@1"], third["R@3"], third["MRR@10"]) == (0.0, 1.0, pytest.approx(1 / 3))
    assert third["ms_per_query"] > 0
    assert third["description"] == "right document at place 3"
    assert "retention" not in result
    assert "per_query" not in result
    comparison = next(c for c in result["comparisons"] if c["measure"] == "R@1")
    assert (comparison["a"], comparison["b"], comparison["difference"]) == ("first", "third", 1.0)
    assert comparison["p"] < 0.001
    assert result["fingerprint"] == DATASET.fingerprint


def test_equal_scores_are_worth_what_chance_is_worth() -> None:
    dataset = Dataset("toy", DATASET.corpus, {f"q{i}": Query(f"q{i}", "0") for i in range(800)},
                      {"test": {f"q{i}": {"d0": 1} for i in range(800)}})  # fmt: skip
    report = evaluate({"constant": Fake(0)}, dataset)
    assert report.systems["constant"].mean("R@1") == pytest.approx(1 / 8, abs=0.04)
    assert report.systems["constant"].mean("R@3") == pytest.approx(3 / 8, abs=0.06)


def test_every_system_warms_up_and_is_prepared_once() -> None:
    system = Fake(1)
    evaluate({"first": system}, DATASET)
    assert system.prepared == 1
    assert system.asked[0] == ["q0"]
    assert sum(map(len, system.asked[1:])) == 40


def test_the_teacher_answers_a_part_of_the_others_queries() -> None:
    student, teacher = Fake(2), Fake(1, pairwise=True)
    report = evaluate({"student": student, "teacher": teacher}, DATASET, limit=20, teacher_limit=10, seed=5)
    result = report.to_dict()
    assert (result["queries"], result["systems"]["student"]["queries"], result["systems"]["teacher"]["queries"]) == (
        20,
        20,
        10,
    )
    assert report.systems["teacher"].queries < report.systems["student"].queries
    assert max(map(len, teacher.asked)) <= 8
    assert {c["queries"] for c in result["comparisons"]} == {10}
    assert result["retention"]["queries"] == 10
    assert (result["retention"]["R@1"], result["retention"]["R@3"], result["retention"]["MRR@10"]) == (0.0, 1.0, 0.5)


def test_retention_of_nothing_is_not_a_number_but_null() -> None:
    report = evaluate({"student": Fake(1), "teacher": Fake(8)}, DATASET)
    assert report.retention is not None
    assert report.retention["R@1"] is None


def test_the_same_seed_draws_the_same_queries() -> None:
    draws = [evaluate({"s": Fake(1)}, DATASET, limit=9, seed=s).systems["s"].queries for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_save(tmp_path: Path) -> None:
    report = evaluate({"bm25": Bm25System(), "student": Fake(2), "teacher": Fake(1)}, DATASET)
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["per_query"]["student"]["MRR@10"] == {f"q{i}": 0.5 for i in range(40)}
    assert saved["versions"]["ir-measures"]
    del saved["per_query"]
    assert saved == json.loads(json.dumps(report.to_dict(), allow_nan=False))


def test_a_gpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert "accelerator" not in evaluate({"s": Fake(1)}, DATASET).to_dict()["machine"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    assert evaluate({"s": Fake(1)}, DATASET).to_dict()["machine"]["accelerator"] == "A100"


def test_table() -> None:
    from rich.console import Console

    report = evaluate({"[bold]first": Fake(1)}, DATASET)
    out = io.StringIO()
    Console(file=out, width=160).print(report.table())
    assert "[bold]first" in out.getvalue()
    assert "1.000" in out.getvalue()
    columns, rows = report.rows()
    assert len(columns) == len(rows[0])
    assert report.comparison_rows()[1] == []


def test_progress_is_reported() -> None:
    out = io.StringIO()
    evaluate({"first": Fake(1, pairwise=True)}, DATASET, progress=PlainProgress(out, interval=0))
    assert "first: answering: 8/40 queries" in out.getvalue()


class NotANumber(Fake):
    def _scores(self, query: Query, corpus: Mapping[str, Document]) -> dict[str, float]:
        return {"d1": float("nan")}


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no system"):
        evaluate({}, DATASET)
    with pytest.raises(DataError, match="no split 'dev'"):
        evaluate({"s": Fake(1)}, DATASET, "dev")
    with pytest.raises(InputError, match="no query of split 'empty'"):
        evaluate({"s": Fake(1)}, DATASET, "empty")
    with pytest.raises(InputError, match="at least 10, the depth of the measures, found 5"):
        evaluate({"s": Fake(1)}, DATASET, k=5)
    with pytest.raises(InputError, match="at least 1, found 0"):
        evaluate({"s": Fake(1, pairwise=True)}, DATASET, teacher_limit=0)
    with pytest.raises(RabtrieverError, match="score for query 'q0' is not a number"):
        evaluate({"s": NotANumber(1)}, DATASET)


def test_a_query_that_a_system_does_not_answer_counts_as_zero() -> None:
    class Silent(Fake):
        def rank(self, *_: Any) -> dict[str, dict[str, float]]:
            return {}

    assert evaluate({"s": Silent(1)}, DATASET).systems["s"].mean("R@1") == 0.0


def test_the_package_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'bm25s', 'ir_measures'}"
    code = f"import sys, rabtriever.evaluation, rabtriever.data; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    assert Report.__module__ == "rabtriever.evaluation.report"

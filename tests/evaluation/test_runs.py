"""Runs in TREC's format say what was measured: ir_measures, reading them, finds the report's own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from rabtriever.data import Dataset, Document, Query
from rabtriever.errors import InputError
from rabtriever.evaluation import Bm25System, evaluate, run_file, write_run

DATA = Dataset.example()


class Untied:
    """Scores without ties, which the report and other tools would break in ways of their own."""

    name = "untied"

    def rank(self, queries: Sequence[Query], corpus: Mapping[str, Document], k: int) -> dict[str, dict[str, float]]:
        rng = np.random.default_rng(0)
        return {query.id: dict(zip(corpus, rng.permutation(len(corpus)) / 7, strict=True)) for query in queries}


def test_a_run_measures_as_the_report_says(tmp_path: Path) -> None:
    report = evaluate({"untied": Untied()}, DATA, k=30, runs=tmp_path / "new" / "runs").to_dict(per_query=True)
    rows = list(ir_measures.read_trec_run(str(run_file(tmp_path / "new" / "runs", "untied"))))
    measured = report["per_query"]["untied"]["nDCG@10"]
    assert len(rows) == len(measured) * min(30, len(DATA.corpus))
    judged = DATA.judgements("test")
    qrels = [ir_measures.Qrel(query, d, grade) for query in measured for d, grade in judged[query].items()]
    found = {value.query_id: value.value for value in ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, rows)}
    assert found == pytest.approx(measured)
    assert 0 < sum(value > 0 for value in found.values()) < len(found)


def test_an_interrupted_evaluations_answers_are_no_run(tmp_path: Path) -> None:
    class Counted(Bm25System):
        asked, pairwise = 0, True  # what reads every pair goes on where it stopped

        def rank(self, queries, corpus, k):  # type: ignore[no-untyped-def]
            self.asked += len(queries)
            return super().rank(queries, corpus, k)

    partial, system = tmp_path / "report.json.partial", Counted()
    evaluate({"bm25": system}, DATA, limit=5, partial=partial)
    whole = system.asked
    evaluate({"bm25": system}, DATA, limit=5, partial=partial)
    assert system.asked == whole  # all of it was in the partial report
    evaluate({"bm25": system}, DATA, limit=5, partial=partial, runs=tmp_path)
    assert system.asked == 2 * whole
    assert len({line.split()[0] for line in run_file(tmp_path, "bm25").read_text().splitlines()}) == 5


def test_names_do_not_meet(tmp_path: Path) -> None:
    names = ["dense:a/b", "dense:a-b", "dense/a:b", "..", "student"]
    assert len({run_file(tmp_path, name) for name in names}) == len(names)
    assert all(run_file(tmp_path, name).parent == tmp_path for name in names)


@pytest.mark.parametrize(
    ("query", "document", "tag"), [("q 1", "d1", "a"), ("q1", "d\t1", "a"), ("q1", "d1", "my system"), ("q1", "", "a")]
)
def test_what_the_format_cannot_say_is_refused(query: str, document: str, tag: str, tmp_path: Path) -> None:
    file = tmp_path / "a.trec"
    file.write_text("kept")
    with pytest.raises(InputError, match="cannot stand in a TREC run"):
        write_run(file, {query: [(document, 1.0)]}, tag)
    assert file.read_text() == "kept"

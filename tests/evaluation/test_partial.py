from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rabtriever.data import Dataset, Document, Query
from rabtriever.errors import DataError
from rabtriever.evaluation import evaluate
from rabtriever.evaluation.partial import PartialReport

DATASET = Dataset(
    "toy",
    corpus={f"d{i}": Document(f"d{i}", f"text {i}") for i in range(8)},
    queries={f"q{i}": Query(f"q{i}", str(i % 8)) for i in range(40)},
    qrels={"test": {f"q{i}": {f"d{i % 8}": 1} for i in range(40)}},
)


class Slow:
    """Reads every pair, and is interrupted after so many queries; finds the right document for every third one."""

    name, pairwise = "slow", True

    def __init__(self, identity: str = "slow 1", breath: int = 1000) -> None:
        self.identity, self.breath = identity, breath
        self.asked: list[str] = []

    def rank(self, queries: Sequence[Query], corpus: Mapping[str, Document], k: int) -> dict[str, dict[str, float]]:
        if len(self.asked) >= self.breath:
            raise KeyboardInterrupt
        self.asked += [query.id for query in queries]
        return {query.id: {f"d{query.text}" if int(query.id[1:]) % 3 == 0 else "d0": 1.0} for query in queries}


def interrupted(path: Path, identity: str = "slow 1") -> set[str]:
    """What a run answered before it was interrupted: two batches of eight, and one more query to warm up."""
    system = Slow(identity, breath=17)
    with pytest.raises(KeyboardInterrupt):
        evaluate({"slow": system}, DATASET, partial=path)
    return set(system.asked)


def test_an_interrupted_evaluation_goes_on_and_finds_what_a_whole_one_finds(tmp_path: Path) -> None:
    whole = evaluate({"slow": Slow()}, DATASET)
    done = interrupted(tmp_path / "partial")
    assert len(done) == 16
    rest = Slow()
    report = evaluate({"slow": rest}, DATASET, partial=tmp_path / "partial")
    assert set(rest.asked) == set(DATASET.queries) - done
    assert report.systems["slow"].per_query == whole.systems["slow"].per_query
    assert 0 < whole.systems["slow"].per_query["R@1"]["q0"] <= 1


def test_time_is_that_of_all_parts(tmp_path: Path) -> None:
    partial = PartialReport(tmp_path / "partial", {"data": DATASET.fingerprint, "split": "test", "k": 100})
    values = evaluate({"slow": Slow()}, DATASET).systems["slow"].per_query
    partial.add("slow 1", values, seconds=80.0)
    again = Slow()
    report = evaluate({"slow": again}, DATASET, partial=tmp_path / "partial")
    assert again.asked == []
    assert report.systems["slow"].ms_per_query == pytest.approx(1000 * 80 / 40)


@pytest.mark.parametrize("change", ["model", "depth", "data"])
def test_answers_to_another_question_are_not_used(tmp_path: Path, change: str) -> None:
    interrupted(tmp_path / "partial")
    data = DATASET
    if change == "data":
        data = Dataset("toy", {**DATASET.corpus, "d9": Document("d9", "new")}, DATASET.queries, DATASET.qrels)
    again = Slow("slow 2" if change == "model" else "slow 1")
    evaluate({"slow": again}, data, k=50 if change == "depth" else 100, partial=tmp_path / "partial")
    assert set(again.asked) == set(DATASET.queries)


def test_quick_systems_are_not_kept(tmp_path: Path) -> None:
    quick = Slow()
    quick.pairwise = False
    evaluate({"quick": quick, "nameless": Slow(identity="")}, DATASET, partial=tmp_path / "partial")
    assert not (tmp_path / "partial").exists()


def test_a_file_that_is_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "partial").write_text('{"systems": 3}')
    with pytest.raises(DataError, match="partial is no partial report"):
        evaluate({"slow": Slow()}, DATASET, partial=tmp_path / "partial")
    assert (tmp_path / "partial").read_text() == '{"systems": 3}'

"""The rerankers library's own types, ranked as the teacher ranks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("rerankers", reason="needs the extra rerankers")

from rerankers.documents import Document
from rerankers.results import RankedResults

from rabtriever import InputError, Retriever
from rabtriever.integrations.rerankers import RabtrieverRanker
from toy_data import NEEDS, TOOLS


def test_ranks_and_scores_are_the_teachers(student: Retriever) -> None:
    ranker = RabtrieverRanker(student.reranker)
    expected = student.reranker.rank(NEEDS[0], TOOLS)
    found = ranker.rank(NEEDS[0], list(TOOLS), doc_ids=[f"id-{tool}" for tool in TOOLS])
    assert isinstance(found, RankedResults)
    assert [result.doc_id for result in found] == [f"id-{TOOLS[place]}" for place, _ in expected]
    assert [result.score for result in found] == [score for _, score in expected]
    assert [result.rank for result in found] == [1, 2, 3, 4, 5, 6]
    assert found.top_k(2)[1].text == TOOLS[expected[1][0]]
    assert ranker.score(NEEDS[0], TOOLS[0]) == pytest.approx(float(student.reranker.score(NEEDS[0], TOOLS[:1])[0]))
    documents = [Document(tool, doc_id=place) for place, tool in enumerate(TOOLS)]
    again = asyncio.run(ranker.rank_async(NEEDS[0], documents))
    assert [result.doc_id for result in again] == [place for place, _ in expected]


def test_one_text_none_and_an_image(student: Retriever) -> None:
    ranker = RabtrieverRanker(student.reranker)
    assert ranker.rank(NEEDS[0], TOOLS[0]).results_count() == 1
    assert ranker.rank(NEEDS[0], []).results_count() == 0
    with pytest.raises(InputError, match="images"):
        ranker.rank(NEEDS[0], Document(document_type="image", image_path="sponge.png"))


def test_a_folder_will_do(student_folder: Path, tmp_path: Path) -> None:
    assert RabtrieverRanker(student_folder, dtype="float32").rank(NEEDS[0], list(TOOLS)).results_count() == len(TOOLS)
    with pytest.raises(InputError):
        RabtrieverRanker(tmp_path / "none")

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.doubles import HashingStudent
from rabtriever.data import Document, Query
from rabtriever.errors import InputError
from rabtriever.evaluation import (
    Bm25System,
    DenseSystem,
    HybridSystem,
    Preparable,
    StudentSystem,
    System,
    TeacherSystem,
)
from rabtriever.index import Index

CORPUS = {
    "d1": Document("d1", "find a sponge to wipe the spill"),
    "d2": Document("d2", "open the door for the cat"),
    "d3": Document("d3", "", title="water the plants"),
}


class Letters:
    """A bi-encoder that counts letters, and how often it was asked for documents."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=np.float32)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        return self.encode_query(texts)

    def similarity(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
        return queries @ documents.T


class CommonWords:
    """A reranker that counts common words, and keeps the pairs it was given."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.pairs += pairs
        return np.array([len(set(q.split()) & set(d.split())) for q, d in pairs], dtype=np.float32)


@pytest.mark.parametrize(
    "system",
    [
        Bm25System(),
        StudentSystem(Letters()),
        TeacherSystem(CommonWords()),
        HybridSystem(StudentSystem(Letters())),
        TeacherSystem(CommonWords(), candidates=2, first=StudentSystem(Letters())),
    ],
)
def test_protocols(system: System) -> None:
    assert isinstance(system, System)
    assert isinstance(system, Preparable)
    ranking = system.rank([Query("q1", "the cat is at the door"), Query("q2", "water")], CORPUS, 2)
    assert {query: len(scores) for query, scores in ranking.items()} == {"q1": 2, "q2": 2}
    assert max(ranking["q1"], key=ranking["q1"].__getitem__) == "d2"
    assert {type(score) for scores in ranking.values() for score in scores.values()} == {float}


def test_bm25_reads_titles() -> None:
    scores = Bm25System().rank([Query("q", "plants")], CORPUS, 10)["q"]
    assert scores["d3"] > 0
    assert scores["d1"] == scores["d2"] == 0


@pytest.mark.parametrize("text", ["the", "?", "\0 \ud800", "zebra", "ß é 猫"])
def test_bm25_queries_without_a_known_word(text: str) -> None:
    assert Bm25System().rank([Query("q", text)], CORPUS, 10)["q"] == {"d1": 0.0, "d2": 0.0, "d3": 0.0}


@pytest.mark.parametrize("text", ["", "the", "x"])
def test_bm25_corpus_without_a_word(text: str) -> None:
    assert Bm25System().rank([Query("q", "cat")], {"d": Document("d", text)}, 10)["q"] == {"d": 0.0}


def test_another_corpus_is_read_anew() -> None:
    other = {"x": Document("x", "cat")}
    for system in (Bm25System(), StudentSystem(Letters())):
        system.rank([Query("q", "cat")], CORPUS, 3)
        assert list(system.rank([Query("q", "cat")], other, 3)["q"]) == ["x"]


def test_the_student_encodes_documents_once() -> None:
    encoder = Letters()
    system = StudentSystem(encoder)
    system.prepare(CORPUS)
    for _ in range(3):
        system.rank([Query("q", "cat")], CORPUS, 3)
    assert encoder.encoded == [document.content for document in CORPUS.values()]


def test_the_teacher_reads_every_pair() -> None:
    reranker = CommonWords()
    TeacherSystem(reranker).rank([Query("q", "cat"), Query("r", "dog")], CORPUS, 1)
    assert reranker.pairs == [(q, document.content) for q in ("cat", "dog") for document in CORPUS.values()]


def test_the_teacher_on_candidates() -> None:
    reranker = CommonWords()
    system = TeacherSystem(reranker, "teacher", candidates=1)
    assert system.name == "teacher on BM25's best 1"
    assert system.rank([Query("q", "a cat")], CORPUS, 10) == {"q": {"d2": 1.0}}
    assert reranker.pairs == [("a cat", CORPUS["d2"].content)]
    with pytest.raises(InputError, match="at least 1, found 0"):
        TeacherSystem(reranker, candidates=0)


def test_a_sentence_transformers_model(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted({word for document in CORPUS.values() for word in document.content.split()})
    tokenizer = Tokenizer(
        models.WordLevel({"?": 0} | {word: i for i, word in enumerate(words, start=1)}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.eye(len(words) + 1, dtype=np.float32)
    model = sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu"
    )
    model.save_pretrained(str(tmp_path / "model"))
    system = DenseSystem(tmp_path / "model")
    scores = system.rank([Query("q", "open the door for the cat")], CORPUS, 3)["q"]
    assert max(scores, key=scores.__getitem__) == "d2"
    assert scores["d2"] == pytest.approx(1.0, abs=1e-5)  # the cosine
    assert system.name == str(tmp_path / "model")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(InputError, match="cannot be loaded as a sentence-transformers model") as caught:
        DenseSystem(tmp_path)
    assert "\n" not in str(caught.value)


class Fixed:
    """Ranks everything in a given order."""

    def __init__(self, *order: str) -> None:
        self.name, self.order = " ".join(order), order

    def rank(self, queries: Sequence[Query], corpus: object, k: int) -> dict[str, dict[str, float]]:
        return {query.id: {id_: 1.0 / place for place, id_ in enumerate(self.order[:k], 1)} for query in queries}


def best_first(system: System, k: int = 10) -> list[str]:
    scores = system.rank([Query("q", "the cat")], CORPUS, k)["q"]
    return sorted(scores, key=lambda id_: -scores[id_])


def test_hybrid_ranks_as_the_sums_of_reciprocal_ranks() -> None:
    def fused(*parts: Fixed, depth: int = 100) -> HybridSystem:
        return HybridSystem(*parts, depth=depth, hybrid="ranks")

    # d2: 1/61 + 1/62, d1: 1/62 + 1/63, d3: 1/63 + 1/61
    assert best_first(fused(Fixed("d2", "d1", "d3"), Fixed("d3", "d2", "d1"))) == ["d2", "d3", "d1"]
    assert best_first(fused(Fixed("d2", "d1"), Fixed("d3")), k=2) == ["d2", "d3"]  # equal: the first one's
    assert best_first(fused(Fixed("d1", "d2", "d3"), Fixed("d3", "d2", "d1"), depth=1), k=1) == ["d1"]


class Hashing(HashingStudent):
    """An index's student that can be evaluated too."""

    def similarity(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
        return queries @ documents.T + np.float32(self.bias)


class Scored:
    """Gives documents fixed scores."""

    name = "scored"

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def rank(self, queries: Sequence[Query], corpus: object, k: int) -> dict[str, dict[str, float]]:
        best = sorted(self.scores, key=lambda id_: -self.scores[id_])[:k]
        return {query.id: {id_: self.scores[id_] for id_ in best} for query in queries}


def test_hybrid_adds_a_share_of_the_seconds_score() -> None:
    student, words = Scored(d1=1.0, d2=0.5, d3=-3.0), Scored(d1=0.0, d2=2.0, d3=7.0)
    assert best_first(HybridSystem(student, words)) == ["d2", "d1", "d3"]  # 1.5, 1.0, 0.5
    assert best_first(HybridSystem(student, words, hybrid=1)) == ["d3", "d2", "d1"]
    assert best_first(HybridSystem(student, words, hybrid=0)) == ["d1", "d2", "d3"]
    # Each system's best alone are fused, with the other's scores of them.
    assert best_first(HybridSystem(student, words, depth=1)) == ["d1", "d3"]
    with pytest.raises(InputError, match="hybrid must be"):
        HybridSystem(student, words, hybrid=-1)


def test_hybrid_is_the_same_in_the_library_and_in_the_evaluation(tmp_path: Path) -> None:
    student = Hashing()
    corpus = {f"d{n}": Document(f"d{n}", f"text {n} " + "of a room " * n) for n in range(40)}
    queries = [Query(f"q{n}", f"text {n}") for n in range(5, 10)]
    index = Index.create(tmp_path / "index", student)
    index.add(list(corpus.values()))
    for hybrid in (True, 1.7, "ranks"):
        found = HybridSystem(StudentSystem(student), hybrid=hybrid).rank(queries, corpus, 10)
        for query in queries:
            hits = index.search(query.text, 10, hybrid=hybrid)
            ours = found[query.id]
            assert sorted(ours, key=lambda id_: -ours[id_]) == [hit.id for hit in hits]


def test_the_teacher_reads_what_a_faster_system_found() -> None:
    teacher = CommonWords()
    system = TeacherSystem(teacher, candidates=2, first=Fixed("d3", "d2", "d1"))
    assert system.name == "teacher on the d3 d2 d1's best 2"
    assert best_first(system) == ["d2", "d3"]
    assert [document for _, document in teacher.pairs] == [CORPUS["d3"].content, CORPUS["d2"].content]


def test_systems_that_share_a_student_encode_the_corpus_once() -> None:
    letters = Letters()
    student = StudentSystem(letters)
    for system in (student, HybridSystem(student), TeacherSystem(CommonWords(), candidates=1, first=student)):
        system.prepare(CORPUS)
        system.rank([Query("q", "the cat")], CORPUS, 2)
    assert len(letters.encoded) == len(CORPUS)


def test_answers_are_kept_only_where_all_parts_are_known() -> None:
    known, other = CommonWords(), Letters()
    known.fingerprint = "0f"  # type: ignore[attr-defined]
    assert TeacherSystem(CommonWords()).identity == ""
    assert "0f" in TeacherSystem(known).identity
    assert TeacherSystem(known, candidates=2).identity != TeacherSystem(known, candidates=3).identity
    assert TeacherSystem(known, candidates=2, first=StudentSystem(other)).identity == ""
    other.fingerprint = "1e"  # type: ignore[attr-defined]
    assert "1e" in TeacherSystem(known, candidates=2, first=StudentSystem(other)).identity

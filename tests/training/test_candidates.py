"""Which documents a query is paired with: never a right one among the wrong, hard ones first, the same by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from rabtriever.data import Dataset, Document, Query
from rabtriever.errors import InputError
from rabtriever.training.candidates import (
    Bm25Negatives,
    JudgedNegatives,
    Mixture,
    WrongDocuments,
    draw,
    mine,
    mixture,
    training_queries,
)
from toy_data import TOOLS, toy_dataset


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_wrong_documents_are_all_others_in_corpus_order() -> None:
    dataset = toy_dataset()
    query = dataset.split("train")[0]
    assert dataset.relevant("train", query.id) == {"sponge"}
    assert WrongDocuments(dataset).of("train", query) == [tool for tool in TOOLS if tool != "sponge"]


def test_a_copy_of_a_right_document_is_not_wrong() -> None:
    """Corpora repeat texts under several ids: the teacher must not learn that one copy is right and the other not."""
    documents = [Document("a", "same"), Document("b", "same"), Document("c", "other"), Document("d", "same", title="x")]
    dataset = Dataset(
        "copies", {d.id: d for d in documents}, {"q": Query("q", "?")}, {"train": {"q": {"a": 1, "c": 0}}}
    )
    assert WrongDocuments(dataset).of("train", dataset.queries["q"]) == ["c", "d"]


def test_draws_are_distinct_and_repeatable() -> None:
    places = np.arange(100, 150)
    drawn = draw(places, 10, rng()).tolist()
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(places.tolist())
    assert draw(places, 10, rng()).tolist() == drawn
    assert draw(places, 10, rng(1)).tolist() != drawn
    for count in (None, 50, 99):
        assert draw(places, count, rng()).tolist() == places.tolist()
    assert draw(places[:0], 3, rng()).tolist() == []


def test_weights_say_how_likely_each_one_is() -> None:
    drawn, four, weights = rng(), np.arange(4), np.array([1.0, 1.0, 8.0, 10.0])
    times = Counter(draw(four, 1, drawn, weights).item() for _ in range(2000))
    assert [times[i] / 2000 for i in range(4)] == pytest.approx([0.05, 0.05, 0.4, 0.5], abs=0.04)
    assert sorted(draw(four, 4, drawn, weights).tolist()) == [0, 1, 2, 3]
    assert len(set(draw(four, 3, drawn, weights).tolist())) == 3


def test_judged_ones_are_half_and_never_copies_of_a_right_one() -> None:
    corpus = {str(i): Document(str(i), f"text {i}") for i in range(30)} | {"copy": Document("copy", "text 0")}
    grades = {"0": 1, "copy": 0, **{str(i): 0 for i in range(3, 9)}}
    dataset = Dataset(
        "graded", corpus, {"q": Query("q", "?"), "r": Query("r", "!")}, {"train": {"q": grades, "r": {"1": 2}}}
    )
    hard = JudgedNegatives(dataset)
    mix = Mixture(dataset, hard)
    assert hard("train", dataset.queries["q"], 1) == [str(i) for i in range(3, 9)]
    for seed in range(5):
        drawn = mix("train", dataset.queries["q"], 6, rng(seed))
        assert len(set(drawn)) == 6
        assert set(drawn[:3]) <= {str(i) for i in range(3, 9)}
        assert not set(drawn) & {"0", "copy"}
        assert len(mix("train", dataset.queries["r"], 6, rng(seed))) == 6  # random where none is judged
    with pytest.raises(InputError, match="no training query with a document judged wrong"):
        JudgedNegatives(toy_dataset())


def test_mined_documents_are_the_best_of_a_random_pool() -> None:
    dataset = toy_dataset()
    queries = dataset.split("train")
    asked: list[tuple[str, str]] = []

    def longest_first(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        asked.extend(pairs)
        return np.array([len(document) for _, document in pairs], np.float32)

    mined = mine(dataset, "train", queries, 1, rng(), longest_first)
    for query in queries:
        pool = [document for text, document in asked if text == query.text]
        assert len(pool) == 4
        best = dataset.corpus[mined[query.id][0]].content
        assert len(best) == max(map(len, pool))
        assert mined[query.id][0] not in dataset.relevant("train", query.id)
    assert len({tuple(sorted(d for t, d in asked if t == query.text)) for query in queries}) > 1


def test_mining_more_than_there_are_gives_all() -> None:
    dataset = toy_dataset()
    query = dataset.split("train")[0]
    mined = mine(dataset, "train", [query], 99, rng(), lambda pairs: np.arange(len(pairs), dtype=np.float32))
    assert sorted(mined[query.id]) == sorted(set(TOOLS) - {"sponge"})
    assert mined[query.id] == [tool for tool in reversed(TOOLS) if tool != "sponge"]  # best score first


def test_bm25_finds_wrong_documents_that_share_words() -> None:
    documents = [
        Document("right", "take the sponge to wipe coke"),
        Document("near", "buy coke"),
        Document("far", "open the window"),
    ]
    queries = {"q": Query("q", "I spilled my coke"), "none": Query("none", "the of"), "empty": Query("empty", "")}
    qrels = {"train": {key: {"right": 1} for key in queries}}
    dataset = Dataset("words", {d.id: d for d in documents}, queries, qrels)
    negatives = Bm25Negatives(dataset)
    assert negatives("train", queries["q"], 1) == ["near"]
    assert negatives("train", queries["q"], 9) == ["near", "far"]
    assert negatives("train", queries["q"], 0) == []
    for key in ("none", "empty"):  # nothing to compare: any wrong document will do
        assert negatives("train", queries[key], 1) == ["near"]


def test_bm25_over_a_corpus_without_a_word_takes_any_wrong_document() -> None:
    documents = {i: Document(i, text) for i, text in (("right", "..."), ("first", "?!"), ("second", "the"))}
    dataset = Dataset("silent", documents, {"q": Query("q", "a word")}, {"train": {"q": {"right": 1}}})
    assert Bm25Negatives(dataset)("train", dataset.queries["q"], 1) == ["first"]


def test_a_mix_is_half_hard_and_half_random() -> None:
    near = [Document(f"near-{i}", f"the coke of house {i}") for i in range(8)]
    far = [Document(f"far-{i}", f"open window {i}") for i in range(40)]
    documents = {d.id: d for d in (Document("right", "wipe the coke"), *near, *far)}
    dataset = Dataset("mix", documents, {"q": Query("q", "I spilled my coke")}, {"train": {"q": {"right": 1}}})
    drawn, mix = rng(), Mixture(dataset, Bm25Negatives(dataset))
    seen: set[str] = set()
    for _ in range(50):
        ids = mix("train", dataset.queries["q"], 5, drawn)
        assert len(set(ids)) == 5
        assert "right" not in ids
        assert all(i.startswith("near") for i in ids[:2])  # BM25's eight best, all of which share a word
        seen |= set(ids)
    assert {d.id for d in near} <= seen
    assert len(seen) > 30  # the others come from everywhere


def test_balanced_others_come_as_often_as_they_are_right_elsewhere() -> None:
    """Of 100 steps 40 are the last one, "done": it must be refused as often as it is to be accepted."""
    corpus = {f"d{i}": Document(f"d{i}", f"word{i}") for i in range(60)} | {"done": Document("done", "done")}
    queries = {f"q{i}": Query(f"q{i}", f"word{i % 50}") for i in range(100)}
    rows = {f"q{i}": {"done": 1} if i < 40 else {f"d{i % 50}": 1, "done": 0} for i in range(100)}
    dataset = Dataset("steps", corpus, queries, {"train": rows, "dev": {"q99": {"d49": 1}}})
    hard = Bm25Negatives(dataset)

    def share(mix: Mixture, split: str) -> float:
        drawn = rng()
        return float(np.mean(["done" in mix(split, queries["q99"], 4, drawn)[2:] for _ in range(300)]))

    for split in ("train", "dev"):  # always by what is right in training
        assert share(Mixture(dataset, hard), split) < 0.1
        assert 0.35 < share(Mixture(dataset, hard, balanced=True), split) < 0.55  # two draws of 41 in 161
    for _ in range(20):  # never a right one, however often it is right
        assert "done" not in Mixture(dataset, hard, balanced=True)("train", queries["q0"], 4, rng())


def test_a_policy_finds_its_mixture() -> None:
    dataset = toy_dataset()
    assert mixture("random:3", dataset) is mixture("mined:3", dataset) is mixture("all", dataset) is None
    for policy in ("bm25:3", "mixed:3", "balanced:3"):
        found = mixture(policy, dataset)
        assert found is not None
        assert isinstance(found.hard, Bm25Negatives)


def test_training_queries_are_a_seeded_draw_in_file_order() -> None:
    dataset = toy_dataset()
    everything = dataset.split("train")
    assert training_queries(dataset, "train", None, 0) == everything
    assert training_queries(dataset, "train", 999, 0) == everything
    few = training_queries(dataset, "train", 5, 0)
    assert len(few) == 5
    assert [q for q in everything if q in few] == few
    assert training_queries(dataset, "train", 5, 0) == few
    assert training_queries(dataset, "train", 5, 1) != few


def test_a_split_without_right_documents_is_refused() -> None:
    dataset = Dataset("none", {"d": Document("d", "x")}, {"q": Query("q", "?")}, {"train": {"q": {"d": 0}}})
    with pytest.raises(InputError, match="no judged query in split 'train'"):
        training_queries(dataset, "train", None, 0)
    with pytest.raises(InputError, match="no split 'dev'"):
        training_queries(dataset, "dev", None, 0)

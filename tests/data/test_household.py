"""The bundled example dataset keeps its promises: split by rationale, one right skill, no words in common."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import rabtriever.data

FOLDER = Path(rabtriever.data.__file__).parent / "household"
SPLITS = ("train", "dev", "test")
# Function words, and the particles of "turn down", "put on", ...: they say nothing about the skill by themselves.
STOP_WORDS = {
    *("a", "an", "and", "at", "down", "for", "in", "is", "it", "my", "of", "off"),
    *("on", "or", "out", "some", "the", "to", "up", "who", "with"),
}
SUFFIXES = ("ings", "ing", "ies", "ed", "es", "er", "ly", "s", "y", "e")


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


SKILLS = {record["_id"]: record["text"] for record in records("corpus.jsonl")}
QUERIES = {record["_id"]: record for record in records("queries.jsonl")}
QRELS: dict[str, list[tuple[str, str]]] = {}
for _split in SPLITS:
    _rows = (FOLDER / "qrels" / f"{_split}.tsv").read_text(encoding="utf-8").splitlines()
    assert _rows[0] == "query-id\tcorpus-id\tscore"
    assert all(row.endswith("\t1") for row in _rows[1:])
    QRELS[_split] = [(row.split("\t")[0], row.split("\t")[1]) for row in _rows[1:]]


def stem(word: str) -> str:
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word


def content_stems(text: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'s", ""))
    return {stem(word) for word in words if word not in STOP_WORDS}


def rationale(query_id: str) -> tuple[str, str]:
    metadata = QUERIES[query_id]["metadata"]
    return metadata["skill"], metadata["rationale"]


def rationales(split: str) -> set[tuple[str, str]]:
    return {rationale(query_id) for query_id, _ in QRELS[split]}


def test_sizes() -> None:
    assert len(SKILLS) >= 60
    assert len(QRELS["train"]) >= 370
    assert len(QRELS["dev"]) >= 45
    assert len(QRELS["test"]) >= 90


def test_ids_and_texts_are_unique_and_tidy() -> None:
    for name, kept in (("corpus.jsonl", SKILLS), ("queries.jsonl", QUERIES)):
        rows = records(name)
        texts = [row["text"] for row in rows]
        assert len(rows) == len(kept)
        assert len({text.lower() for text in texts}) == len(texts)
        assert all(text == " ".join(text.split()) and 0 < len(text) < 220 for text in texts)


def test_lengths_are_those_of_spoken_sentences() -> None:
    assert all(3 <= len(text.split()) <= 8 for text in SKILLS.values())
    assert all(5 <= len(query["text"].split()) <= 30 for query in QUERIES.values())


def test_every_query_has_exactly_one_relevant_skill_in_one_split() -> None:
    judged = [pair for split in SPLITS for pair in QRELS[split]]
    assert Counter(query_id for query_id, _ in judged) == Counter(QUERIES.keys())
    assert all(QUERIES[query_id]["metadata"]["skill"] == skill for query_id, skill in judged)
    assert {skill for _, skill in judged} == set(SKILLS)


def test_splits_share_no_rationale() -> None:
    assert not rationales("train") & rationales("dev")
    assert not rationales("train") & rationales("test")
    assert not rationales("dev") & rationales("test")


def test_rationales_are_worded_more_than_once() -> None:
    wordings = Counter(rationale(query_id) for query_id in QUERIES)
    assert set(wordings.values()) <= {2, 3}


def test_every_skill_is_taught_and_examined() -> None:
    taught = Counter(skill for skill, _ in rationales("train"))
    assert all(taught[skill] >= 2 for skill in SKILLS)
    assert {skill for skill, _ in rationales("dev") | rationales("test")} == set(SKILLS)
    assert len({skill for skill, _ in rationales("test")}) >= 0.75 * len(SKILLS)


def test_no_word_of_the_skill_gives_it_away() -> None:
    shared: dict[str, set[str]] = defaultdict(set)
    for query_id, query in QUERIES.items():
        shared[query_id] |= content_stems(query["text"]) & content_stems(SKILLS[query["metadata"]["skill"]])
    assert {query_id: words for query_id, words in shared.items() if words} == {}


@pytest.mark.parametrize("split", SPLITS)
def test_bm25_is_near_chance(split: str) -> None:
    bm25s = pytest.importorskip("bm25s")
    ids = list(SKILLS)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(SKILLS.values()), show_progress=False), show_progress=False)
    texts = [QUERIES[query_id]["text"] for query_id, _ in QRELS[split]]
    hits, _ = index.retrieve(bm25s.tokenize(texts, show_progress=False), k=1, show_progress=False)
    found = sum(ids[hit[0]] == skill for hit, (_, skill) in zip(hits, QRELS[split], strict=True))
    assert found / len(texts) < 0.1

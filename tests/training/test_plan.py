"""Stage I's pairs, step by step: each query once an epoch, drawn when the epoch begins, kept for a resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rabtriever.training.config import TeacherConfig
from rabtriever.training.plan import Pair, Plan
from toy_data import TOOLS, toy_dataset

ALL = TeacherConfig(candidates="all", queries_per_step=5)


class Judge:
    """Scores by a table that changes with every call, as a model in training does."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.calls += 1
        return np.random.default_rng(self.calls).random(len(pairs), dtype=np.float32)


def plan(config: TeacherConfig, folder: Path | None = None, seed: int = 0, judge: Judge | None = None) -> Plan:
    dataset = toy_dataset()
    return Plan(dataset, dataset.split("train"), config, seed, judge or Judge(), folder)


def epoch(of: Plan, number: int) -> list[list[Pair]]:
    return [of.step(number * of.steps_per_epoch + place) for place in range(of.steps_per_epoch)]


def test_an_epoch_visits_each_query_once() -> None:
    p = plan(ALL)
    assert p.steps_per_epoch == 5  # 24 queries, 5 a step
    for number in (0, 1):
        steps = epoch(p, number)
        seen = [text for step in steps for text in dict.fromkeys(pair.query for pair in step)]
        assert sorted(seen) == sorted(q.text for q in p.queries.values())
        assert [len({pair.query for pair in step}) for step in steps] == [5, 5, 5, 5, 4]
    assert epoch(p, 0) != epoch(p, 1)  # in another order


@pytest.mark.parametrize(
    ("policy", "count"),
    [("all", 5), ("random:2", 2), ("bm25:3", 3), ("mined:1", 1), ("mixed:3", 3), ("mixed:1", 1), ("balanced:3", 3)],
)
def test_each_query_brings_its_right_and_so_many_wrong_documents(policy: str, count: int) -> None:
    p = plan(ALL.model_copy(update={"candidates": policy}))
    texts = {d.id: d.content for d in p.dataset.corpus.values()}
    for step in epoch(p, 0):
        for query in dict.fromkeys(pair.query for pair in step):
            pairs = [pair for pair in step if pair.query == query]
            key = next(q.id for q in p.queries.values() if q.text == query)
            right = {texts[i] for i in p.dataset.relevant("train", key)}
            assert {pair.document for pair in pairs if pair.right} == right
            wrong = [pair.document for pair in pairs if not pair.right]
            assert len(set(wrong)) == len(wrong) == count
            assert set(wrong) <= set(texts.values()) - right


def test_apart_each_text_of_a_step_stands_once_with_all_that_is_right() -> None:
    p = plan(ALL.model_copy(update={"candidates": "random:2", "apart_queries": 0}))
    ids = {document.content: key for key, document in p.dataset.corpus.items()}
    keys = {query.text: key for key, query in p.queries.items()}
    for number in range(p.steps_per_epoch):
        pairs, apart = p.step(number), p.apart(number)
        assert apart.queries == list(dict.fromkeys(pair.query for pair in pairs))
        assert sorted(apart.documents) == sorted({pair.document for pair in pairs})
        for query, row in zip(apart.queries, apart.right, strict=True):
            relevant = p.dataset.relevant("train", keys[query])
            assert row == [ids[document] in relevant for document in apart.documents]  # also what others brought


def test_further_queries_are_read_apart_each_with_a_right_document() -> None:
    few = {"max_queries": 8, "queries_per_step": 2, "candidates": "random:1", "apart_weight": 1.0, "apart_queries": 6}
    p = plan(TeacherConfig.model_validate(few))
    queries = {query.text: query.id for query in p.dataset.split("train")}
    seen = set()
    for number in range(p.steps_per_epoch):
        own = list(dict.fromkeys(pair.query for pair in p.step(number)))
        apart = p.apart(number)
        assert apart.queries[: len(own)] == own
        assert len(set(apart.queries)) == len(own) + 6
        assert all(any(row) for row in apart.right)
        for text, row in zip(apart.queries, apart.right, strict=True):
            right = {p.dataset.corpus[i].content for i in p.dataset.relevant("train", queries[text])}
            assert row == [document in right for document in apart.documents]
        assert (p.apart(number).queries, p.apart(number).documents) == (apart.queries, apart.documents)
        seen |= set(apart.queries[len(own) :])
    assert len(seen) > 6  # another draw each step
    with pytest.raises(ValueError, match="apart_queries are read for apart_weight"):
        TeacherConfig(apart_weight=0, apart_queries=2)
    assert TeacherConfig(apart_weight=0).apart_queries == 0
    assert TeacherConfig.model_validate(TeacherConfig(apart_weight=0).model_dump()).apart_queries == 0


def test_random_documents_change_from_epoch_to_epoch() -> None:
    p = plan(ALL.model_copy(update={"candidates": "random:1"}))
    wrong = [
        {(pair.query, pair.document) for step in epoch(p, number) for pair in step if not pair.right}
        for number in range(4)
    ]
    assert len(set.union(*wrong)) > len(wrong[0])


def test_the_seed_decides() -> None:
    config = ALL.model_copy(update={"candidates": "random:2"})
    assert epoch(plan(config), 1) == epoch(plan(config), 1)
    assert epoch(plan(config), 1) != epoch(plan(config, seed=1), 1)


def test_steps_can_be_asked_for_in_any_order() -> None:
    config = ALL.model_copy(update={"candidates": "random:2"})
    forwards, backwards = plan(config), plan(config)
    expected = [forwards.step(n) for n in range(12)]
    assert [backwards.step(n) for n in reversed(range(12))] == expected[::-1]


def test_mining_asks_the_model_once_an_epoch_and_is_kept_for_a_resume(tmp_path: Path) -> None:
    """By the time of a resume the model is another: a mined epoch cannot be drawn again."""
    config, judge = ALL.model_copy(update={"candidates": "mined:1"}), Judge()
    before = plan(config, tmp_path, judge=judge)
    first, second = epoch(before, 0), epoch(before, 1)
    assert judge.calls == 2
    resumed = plan(config, tmp_path, judge=judge)
    assert epoch(resumed, 1) == second
    assert epoch(resumed, 0) == first
    assert judge.calls == 2
    epoch(resumed, 2)
    assert judge.calls == 3


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    epoch(plan(ALL), 0)
    assert list(tmp_path.iterdir()) == []
    assert len(TOOLS) == 6

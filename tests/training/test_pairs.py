"""Stage III's pairs: candidates, the store behind them, and dev measured as one would by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from closeness import assert_same
from rabtriever import Reranker
from rabtriever.training import teacher_outputs as module
from rabtriever.training.config import DistillConfig
from rabtriever.training.pairs import DevSet, PairSet
from rabtriever.training.teacher_outputs import TeacherOutputs
from toy_data import TOOLS, toy_dataset

DATA = toy_dataset()
QUERIES = DATA.split("train")


@pytest.fixture
def outputs(teacher: Reranker, tmp_path: Path) -> TeacherOutputs:
    return TeacherOutputs(teacher, tmp_path)


def test_outputs_are_the_teachers(teacher: Reranker, outputs: TeacherOutputs) -> None:
    texts = [query.text for query in QUERIES]
    assert_same(outputs.queries(texts), teacher.query_states(texts))
    assert_same(outputs.documents(TOOLS), teacher.document_states(TOOLS))
    pairs = [(text, tool) for text in texts for tool in TOOLS]
    rows = outputs.judge(pairs)
    states = teacher.states(pairs)
    assert_same(outputs.states(rows), states, 1e-3)  # kept in half precision
    assert_same(outputs.logits(rows), teacher.rows.logits(states))


def test_labels_are_the_datasets(outputs: TeacherOutputs) -> None:
    pairs = PairSet(DATA, QUERIES, outputs, "random:1", 0)
    ids = list(DATA.corpus)
    queries = torch.tensor([3, 0, 5])
    columns, right = pairs.labels.draw(queries, 100, 0)
    assert columns.tolist() == list(range(len(ids)))
    for row, query in zip(right, queries.tolist(), strict=True):
        assert {ids[i] for i in torch.nonzero(row).flatten().tolist()} == DATA.relevant("train", QUERIES[query].id)
    some, few = pairs.labels.draw(queries, 2, 0)
    assert 2 <= len(some) < len(ids)
    assert torch.equal(few.sum(1), right.sum(1))  # what is right is always among them
    assert torch.equal(right[:, some], few)


def test_nothing_is_computed_twice(teacher: Reranker, outputs: TeacherOutputs, tmp_path: Path) -> None:
    pairs = [("a", "x"), ("a", "y"), ("a", "x"), ("b", "x")]
    first = outputs.judge(pairs)
    assert outputs.computed == 3
    assert first[0] == first[2]
    assert torch.equal(outputs.judge(pairs[::-1]), first.flip(0))
    assert outputs.computed == 3
    another_run = TeacherOutputs(teacher, tmp_path)
    another_run.judge([*pairs, ("c", "x")])
    assert another_run.computed == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_what_is_kept_from_before_and_a_stop_change_no_bit(
    lost: int, teacher: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents read in another batch round otherwise: a resumed process has none of them in memory."""
    monkeypatch.setattr(module, "_CHUNK_PAIRS", 12)
    pairs = [(query.text, text) for query in QUERIES[:6] for text in (*TOOLS, "a much longer document than the others")]
    teacher.score_pairs(pairs[::3])  # some are in memory
    whole = TeacherOutputs(teacher, tmp_path / "whole")
    rows = whole.judge(pairs)

    stopped, plain, calls = TeacherOutputs(teacher, tmp_path / "stopped"), teacher.states, []

    def states(chunk: Any, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == lost + 1:
            raise KeyboardInterrupt
        return plain(chunk, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "states", states)
        with pytest.raises(KeyboardInterrupt):
            stopped.judge(pairs)
    teacher.forget()
    resumed = TeacherOutputs(teacher, tmp_path / "stopped")
    found = resumed.judge(pairs)
    assert resumed.computed == len(pairs) - 12 * lost
    assert torch.equal(resumed.states(found), whole.states(rows))
    assert torch.equal(resumed.logits(found), whole.logits(rows))


def test_another_teacher_has_a_store_of_its_own(teacher: Reranker, outputs: TeacherOutputs, tmp_path: Path) -> None:
    outputs.judge([("a", "x")])
    other = Reranker(teacher.backbone, teacher.prompt, teacher.base, weights_hash="others")
    elsewhere = TeacherOutputs(other, tmp_path)
    elsewhere.judge([("a", "x")])
    assert elsewhere.computed == 1


@pytest.mark.parametrize(("policy", "count"), [("all", 6), ("random:2", 3), ("on-policy:2", 3), ("random:99", 6)])
def test_candidates_are_the_right_ones_and_so_many_others(policy: str, count: int, outputs: TeacherOutputs) -> None:
    pairs = PairSet(DATA, QUERIES, outputs, policy, seed=0)
    assert len(pairs) == count * len(QUERIES)
    for query, chosen in zip(QUERIES, pairs.chosen, strict=True):
        assert len(set(chosen)) == count
        assert TOOLS[chosen[0]] in DATA.relevant("train", query.id)
    assert PairSet(DATA, QUERIES, outputs, policy, seed=0).chosen == pairs.chosen


def test_a_batch_holds_all_pairs_of_its_queries(outputs: TeacherOutputs) -> None:
    pairs = PairSet(DATA, QUERIES, outputs, "random:2", seed=0)
    asked = torch.tensor([7, 0, 3])
    batch = pairs.batch(asked)
    assert torch.equal(batch.queries, asked)
    assert batch.owner.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batch.documents.tolist() == [i for q in (7, 0, 3) for i in pairs.chosen[q]]
    expected = outputs.judge(
        [(pairs.query_texts[q], pairs.document_texts[i]) for q in (7, 0, 3) for i in pairs.chosen[q]]
    )
    assert torch.equal(batch.rows, expected)


def test_on_policy_adds_the_students_own_best_and_pays_for_new_pairs_alone(outputs: TeacherOutputs) -> None:
    pairs = PairSet(DATA, QUERIES, outputs, "on-policy:3", seed=0)
    paid = outputs.computed
    assert paid == len({(q, d) for q, ids in zip(pairs.query_texts, pairs.chosen, strict=True) for d in ids})
    before = [list(ids) for ids in pairs.chosen]
    torch.manual_seed(0)
    folded, documents = torch.randn(len(QUERIES), 4), torch.randn(len(TOOLS), 4)
    new = pairs.refresh(folded, documents)
    assert new > 0
    assert outputs.computed == paid + new
    best = (folded @ documents.T).topk(3, dim=1).indices.tolist()
    for old, now, top in zip(before, pairs.chosen, best, strict=True):
        assert now[: len(old)] == old
        assert set(now) == {*old, *top}
        assert len(set(now)) == len(now)
    assert pairs.refresh(folded, documents) == 0  # the same ranking again brings nothing
    pairs.restore(before)
    assert len(pairs) == sum(map(len, before))
    assert outputs.computed == paid + new


def test_the_deviation_of_the_target_is_per_dimension(outputs: TeacherOutputs) -> None:
    pairs = PairSet(DATA, QUERIES, outputs, "all", seed=0)
    states = outputs.states(pairs.batch(torch.arange(len(QUERIES))).rows)
    assert_same(pairs.target_deviation(), states.std(0), 1e-4)
    assert bool((pairs.target_deviation() > 0).all())


def test_dev_is_measured_as_by_hand(teacher: Reranker, outputs: TeacherOutputs) -> None:
    dev = DevSet.of(DATA, outputs, DistillConfig(), seed=0)
    assert dev is not None
    torch.manual_seed(1)
    folded, documents = torch.randn(6, 5), torch.randn(len(TOOLS), 5)
    mrr, recall, correlation = dev.measure(folded, documents)
    ranks = []
    for row, query in enumerate(DATA.split("dev")):
        scores = {tool: float(folded[row] @ documents[i]) for i, tool in enumerate(TOOLS)}
        [right] = DATA.relevant("dev", query.id)
        ranks.append(1 + sum(scores[tool] > scores[right] for tool in TOOLS))
    assert mrr == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert recall == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    texts = [d.content for d in DATA.corpus.values()]
    judged = teacher.score_pairs([(q.text, text) for q in DATA.split("dev") for text in texts])
    position = dev.owner * len(TOOLS) + dev.documents
    assert sorted(position.tolist()) == list(range(36))  # a corpus this small is sampled whole
    student = (folded @ documents.T).flatten().numpy()
    assert correlation == pytest.approx(np.corrcoef(student, judged)[0, 1], abs=1e-4)


def test_ties_count_against_the_student(outputs: TeacherOutputs) -> None:
    dev = DevSet.of(DATA, outputs, DistillConfig(), seed=0)
    assert dev is not None
    mrr, recall, correlation = dev.measure(torch.zeros(6, 5), torch.zeros(len(TOOLS), 5))
    assert (mrr, recall, correlation) == (pytest.approx(1 / 6), 0, 0)


def test_no_dev_split_is_no_error(outputs: TeacherOutputs) -> None:
    assert DevSet.of(toy_dataset(dev=False), outputs, DistillConfig(), seed=0) is None

"""Every position of the query part: the store gives back what plain passes give, and no pair is read twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from closeness import assert_same
from rabtriever import Reranker
from rabtriever.training import positions as module
from rabtriever.training.pairs import PairSet
from rabtriever.training.teacher_outputs import TeacherOutputs
from toy_data import toy_dataset

DATA = toy_dataset()
QUERIES = DATA.split("train")


def plain(teacher: Reranker, query: str, document: str | None = None) -> Tensor:
    """All states of the query part in a pass of its own, behind the document or alone."""
    before = [] if document is None else teacher.prompt.document_ids(document)
    ids = torch.tensor([before + teacher.prompt.query_ids(query)])
    with torch.inference_mode():
        hidden: Tensor = teacher.backbone.blocks(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[0, len(before) :].float()


@pytest.mark.parametrize("chunk", [2, 256])
def test_positions_are_those_of_plain_passes(
    chunk: int, teacher: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_PAIRS", chunk)
    outputs = TeacherOutputs(teacher, tmp_path)
    pairs = PairSet(DATA, QUERIES[:5], outputs, "random:2", 0, every_position=True)
    batch = pairs.batch(torch.tensor([3, 0, 4]))
    at, own = batch.positions, pairs.positions
    assert at is not None and own is not None
    for pair, (owner, document, row) in enumerate(
        zip(batch.owner.tolist(), batch.documents.tolist(), batch.rows.tolist(), strict=True)
    ):
        query, text = QUERIES[[3, 0, 4][owner]].text, pairs.document_texts[document]
        here = at.pair == pair
        assert_same(own.e_q[at.states][at.place[here]], plain(teacher, query))
        assert_same(outputs.states(at.rows[here]), plain(teacher, query, text), 1e-3)  # kept in half precision
        assert at.rows[here][-1] == row  # the last one is the answer's
    assert len(at.states) == sum(len(teacher.prompt.query_ids(QUERIES[i].text)) for i in (3, 0, 4))


def test_pairs_are_read_once_for_both_uses(teacher: Reranker, tmp_path: Path) -> None:
    outputs = TeacherOutputs(teacher, tmp_path)
    pairs = PairSet(DATA, QUERIES[:5], outputs, "on-policy:2", 0, every_position=True)
    asked = {(q, d) for q, ids in zip(pairs.query_texts, pairs.chosen, strict=True) for d in ids}
    assert outputs.computed == len(asked)
    torch.manual_seed(0)
    new = pairs.refresh(torch.randn(5, 4), torch.randn(len(pairs.document_texts), 4))
    assert outputs.computed == len(asked) + new > len(asked)
    again = TeacherOutputs(teacher, tmp_path)
    assert PairSet(DATA, QUERIES[:5], again, "on-policy:2", 0, every_position=True).positions is not None
    assert again.computed == 0


def test_the_deviation_is_that_of_all_positions(teacher: Reranker, tmp_path: Path) -> None:
    outputs = TeacherOutputs(teacher, tmp_path)
    pairs = PairSet(DATA, QUERIES[:5], outputs, "all", 0, every_position=True)
    assert pairs.positions is not None
    assert_same(pairs.target_deviation(), outputs.states(pairs.positions.rows).std(0), 1e-4)
    last = PairSet(DATA, QUERIES[:5], outputs, "all", 0)
    assert not torch.allclose(last.target_deviation(), pairs.target_deviation(), rtol=0.1)

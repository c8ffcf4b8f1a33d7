"""Queries learn to be read: documents and teacher stay to the last bit, and a stop changes nothing of the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever import Dataset, Reranker, Retriever, distill
from rabtriever.data import Document, Query
from rabtriever.errors import InputError
from rabtriever.predictor import PredictorConfig
from rabtriever.progress import SilentProgress
from rabtriever.query_side import QuerySide
from rabtriever.training import query_loop
from rabtriever.training.config import DistillConfig, LoraConfig, QuerySideConfig
from rabtriever.training.pairs import DevSet
from rabtriever.training.query_loop import QueryLoop, length_batches
from rabtriever.training.teacher_outputs import TeacherOutputs
from toy_data import NEEDS, TOOLS, StopAt, toy_dataset

DATA = toy_dataset()
PAIRS = [(need, tool) for need in NEEDS for tool in TOOLS]
SIDE = QuerySideConfig(
    lora=LoraConfig(rank=4), freeze_layers=1, epochs=6, batch_queries=4, learning_rate=1e-2, predictor_rate=3e-3
)
CONFIG = DistillConfig(predictor=PredictorConfig(rank=None), candidates="random:2", epochs=2, query_side=SIDE)
DROPOUT = CONFIG.model_copy(
    update={
        "predictor": PredictorConfig(dropout=0.3, rank=8, width=16),
        "query_side": SIDE.model_copy(update={"lora": LoraConfig(rank=4, dropout=0.2), "max_queries": 17}),
    }
)


def report(student: Retriever) -> dict[str, Any]:
    return {k: v for k, v in student.training["distill"]["query_side"].items() if k != "seconds"}


def mrr(student: Retriever, dataset: Dataset, split: str) -> float:
    ids = list(dataset.corpus)
    scores = student.similarity(
        student.encode_query([q.text for q in dataset.split(split)]),
        student.encode_document([d.content for d in dataset.corpus.values()]),
    )
    ranks = []
    for row, query in zip(scores, dataset.split(split), strict=True):
        right = [ids.index(i) for i in dataset.relevant(split, query.id)]
        ranks.append(1 + int((np.delete(row, right) >= row[right].max()).sum()))
    return float(np.mean([1 / rank for rank in ranks]))


def test_queries_learn_and_all_else_stays(teacher: Reranker, store: Path, tmp_path: Path) -> None:
    before = teacher.score_pairs(PAIRS), teacher.fingerprint
    plain = distill(teacher, DATA, CONFIG.model_copy(update={"query_side": None}), store=store)
    student = distill(teacher, DATA, CONFIG, store=store)
    found = report(student)
    assert found["kept"]
    assert found["steps"] == 36  # 24 queries, four a step, six times
    assert found["queries"] == 24
    history = [entry["dev_mrr"] for entry in found["history"]]
    assert len(history) == 5  # before, and four times on the way
    assert history[0] == pytest.approx(mrr(plain, DATA, "dev"))
    assert found["dev_mrr"] == max(history) == pytest.approx(mrr(student, DATA, "dev"))
    assert max(history) > history[0] + 0.1
    assert mrr(student, DATA, "train") > mrr(plain, DATA, "train") + 0.05
    assert np.array_equal(student.encode_document(list(TOOLS)), plain.encode_document(list(TOOLS)))
    teacher.forget()
    assert np.array_equal(teacher.score_pairs(PAIRS), before[0])
    assert teacher.fingerprint == before[1]
    assert student.fingerprint != plain.fingerprint
    assert student.document_fingerprint == plain.document_fingerprint
    student.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", dtype="float32")
    assert loaded.fingerprint == student.fingerprint
    assert np.array_equal(loaded.encode_query(list(NEEDS)), student.encode_query(list(NEEDS)))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "a LoRA adapter that queries are read with" in card


def test_an_adapter_that_is_no_better_on_dev_is_left_out(teacher: Reranker, store: Path, tmp_path: Path) -> None:
    """By labels that are turned round in dev: what is learnt can only do harm there."""
    wrong = {
        query.id: {tool: 1 for tool in TOOLS if tool not in DATA.relevant("dev", query.id)}
        for query in DATA.split("dev")
    }
    perverse = replace(DATA, qrels={**DATA.qrels, "dev": wrong})
    plain = distill(teacher, perverse, CONFIG.model_copy(update={"query_side": None}), store=store)
    student = distill(teacher, perverse, CONFIG, store=store)
    found = report(student)
    assert not found["kept"]
    assert found["dev_mrr"] == found["history"][0]["dev_mrr"] >= max(entry["dev_mrr"] for entry in found["history"])
    assert student.query_side is None
    assert student.fingerprint == plain.fingerprint
    assert np.array_equal(student.encode_query(list(NEEDS)), plain.encode_query(list(NEEDS)))
    student.save_pretrained(tmp_path / "model")
    assert "it was left out" in (tmp_path / "model" / "README.md").read_text()
    assert not (tmp_path / "model" / "query").exists()


@pytest.mark.parametrize("config", [CONFIG, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("stops", [(1,), (7, 9), (30, 35)], ids=str)
def test_a_stop_changes_no_bit(
    stops: tuple[int, ...],
    config: DistillConfig,
    teacher: Reranker,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = distill(teacher, DATA, config, store=store, seed=3)
    for seconds in (300.0, -1.0):  # with the state of the last evaluation, and with that of every step
        monkeypatch.setattr(query_loop, "_SAVE_SECONDS", seconds)
        folder = tmp_path / f"run{seconds}"
        total = whole.training["distill"]["query_side"]["steps"]
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                progress = StopAt("queries", min(stop, total - 1))
                distill(teacher, DATA, config, folder, store=store, seed=3, progress=progress)
        resumed = distill(teacher, DATA, config, folder, store=store, seed=3)
        assert resumed.fingerprint == whole.fingerprint
        assert np.array_equal(resumed.encode_query(list(NEEDS)), whole.encode_query(list(NEEDS)))
        assert report(resumed) == report(whole)


def test_without_dev_the_last_state_is_kept(teacher: Reranker, store: Path) -> None:
    student = distill(teacher, toy_dataset(dev=False), CONFIG, store=store)
    assert report(student)["history"] == []
    assert mrr(student, DATA, "train") > 0.6  # by chance 0.41


def test_a_large_corpus_is_drawn_from(teacher: Reranker, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_loop, "MOST_DOCUMENTS", 2)
    seen: list[int] = []
    plain = query_loop.label_cross_entropy

    def counted(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append(scores.shape[1])
        assert bool(right.any(1).all())
        return plain(scores, right)

    monkeypatch.setattr(query_loop, "label_cross_entropy", counted)
    distill(teacher, DATA, CONFIG, store=store)
    assert max(seen) <= 6
    assert min(seen) < 6


def test_a_loss_that_is_no_number_leaves_the_model_as_it_was(teacher: Reranker, store: Path) -> None:
    before = teacher.query_states(list(NEEDS))
    wild = CONFIG.model_copy(update={"query_side": SIDE.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(InputError, match="lower distill.query_side.learning_rate") as caught:
        distill(teacher, DATA, wild, store=store)
    assert "at step" in str(caught.value)
    assert torch.equal(teacher.query_states(list(NEEDS)), before)
    assert not any(".lora_" in name for name, _ in teacher.backbone.model.named_parameters())


def test_adapters_on_no_layer_are_refused_at_once(teacher: Reranker, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"query_side": QuerySideConfig()})
    with pytest.raises(InputError, match="query_side.freeze_layers=12 leaves nothing to train in 3 layers"):
        distill(teacher, DATA, config, store=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_query_without_labels_in_the_corpus_teaches_nothing(teacher: Reranker, store: Path) -> None:
    """Several right documents share their query's weight; a query of another split is none of the training's."""
    corpus = {tool: Document(tool, f"take the {tool}") for tool in TOOLS}
    queries = {str(i): Query(str(i), need) for i, need in enumerate(NEEDS)}
    right = {"train": {"0": {"sponge": 1, "broom": 2}, "1": {"kettle": 1, "torch": 0}}, "test": {"2": {"ladder": 1}}}
    student = distill(teacher, Dataset("few", corpus, queries, right), CONFIG, store=store)
    assert report(student)["queries"] == 2
    scores = student.score(NEEDS[0], [d.content for d in corpus.values()])
    assert set(np.argsort(-scores)[:2]) == {0, 1}


def test_batches_hold_texts_of_similar_length_and_each_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, size=103).tolist()
    batches = length_batches(lengths, 4, seed=1)
    for _ in range(3):
        epoch = [next(batches) for _ in range(26)]
        assert sorted(row for batch in epoch for row in batch) == list(range(103))
        spread = np.mean([max(lengths[r] for r in b) - min(lengths[r] for r in b) for b in epoch])
        assert spread < 15  # of 95
    again = length_batches(lengths, 4, seed=1)
    assert next(again) == next(length_batches(lengths, 4, seed=1)) != next(length_batches(lengths, 4, seed=2))


def test_an_adapter_that_is_there_goes_on_learning(teacher: Reranker, store: Path, tmp_path: Path) -> None:
    student = distill(teacher, DATA, CONFIG, store=store)
    assert student.query_side is not None
    outputs = TeacherOutputs(teacher, store)
    dev = DevSet.of(DATA, outputs, CONFIG, 0)
    before = student.encode_query(list(NEEDS))

    def again(side: QuerySideConfig) -> tuple[QuerySide | None, dict[str, Any]]:
        loop = QueryLoop(student, DATA, dev, side, 1, tmp_path / str(side.learning_rate), SilentProgress())
        return loop.run()

    with pytest.raises(InputError, match="does not fit"):
        again(SIDE.model_copy(update={"lora": LoraConfig(rank=2), "learning_rate": 1e-6}))
    assert np.array_equal(student.encode_query(list(NEEDS)), before)
    side, found = again(SIDE)
    assert found["history"][0]["dev_mrr"] == pytest.approx(report(student)["dev_mrr"])  # where the first one ended
    assert found["dev_mrr"] >= found["history"][0]["dev_mrr"]
    assert side is not None
    changed = any(not torch.equal(side.state[name], tensor) for name, tensor in student.query_side.state.items())
    assert changed == found["kept"]
    if not found["kept"]:
        assert side is student.query_side

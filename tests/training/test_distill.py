"""Stage III: the student learns, every variant runs, and a stop at any moment changes nothing of the result."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rabtriever import Reranker, Retriever, distill
from rabtriever.data import Dataset, Query
from rabtriever.errors import InputError, MismatchError
from rabtriever.predictor import PredictorConfig
from rabtriever.progress import SilentProgress
from rabtriever.training import checkpoint
from rabtriever.training.config import DistillConfig
from rabtriever.training.predictor_loop import PredictorLoop
from toy_data import TOOLS, StopAt, toy_dataset

DATA = toy_dataset()
QUERIES = [query.text for query in DATA.split("test")]
QUICK = DistillConfig(candidates="random:3", epochs=5, batch_queries=8)
DROPOUT = QUICK.model_copy(
    update={
        "candidates": "on-policy:2",
        "max_queries": 18,
        "labelled_queries": 4,
        "refresh_epochs": 2,
        "predictor": PredictorConfig(dropout=0.3, rank=8, width=16),
    }
)
ROUNDED = DROPOUT.model_copy(update={"dtype": "bfloat16"})
EVERYWHERE = DROPOUT.model_copy(update={"mse_positions": "all"})
CONFIGS = pytest.mark.parametrize(
    "config", [QUICK, ROUNDED, EVERYWHERE], ids=["paper", "on-policy-dropout-bfloat16", "every-position"]
)


def vectors(student: Retriever) -> tuple[np.ndarray, np.ndarray]:
    return student.encode_query(QUERIES), student.encode_document(TOOLS)


def report(student: Retriever) -> dict[str, Any]:
    timed = ("seconds", "teacher_pairs_computed")
    return {key: value for key, value in student.training["distill"].items() if key not in timed}


def assert_equal(found: Retriever, expected: Retriever) -> None:
    for left, right in zip(vectors(found), vectors(expected), strict=True):
        assert np.array_equal(left, right)
    assert found.fingerprint == expected.fingerprint
    assert report(found) == report(expected)


# --- learning


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"candidates": "all"},
        {"candidates": "on-policy:2", "refresh_epochs": 1},
        {"mse_weight": 0.0},
        {"kl_weight": 0.0},
        {"kl": "forward"},
        {"ranking_weight": 0.0},
        {"label_weight": 0.0},
        {"mse_weight": 0.0, "kl_weight": 0.0},
        {"vocabulary": True},
        {"normalize_target": False},
        {"mse_positions": "all"},
        {"mse_positions": "all", "candidates": "on-policy:2", "refresh_epochs": 1, "max_queries": 18},
        {"mse_positions": "all", "max_queries": 18, "labelled_queries": 4, "batch_queries": 2},
        {"dtype": "bfloat16"},
        {"predictor": PredictorConfig(layers=1)},
        {"predictor": PredictorConfig(layers=3, width=20)},
        {"predictor": PredictorConfig(multiply=False)},
        {"predictor": PredictorConfig(rank=8)},
        {"predictor": PredictorConfig(standardize=False, zero_init=False)},
    ],
    ids=str,
)
def test_every_variant_trains(change: dict[str, Any], teacher: Reranker, store: Path) -> None:
    student = distill(teacher, DATA, QUICK.model_copy(update=change), store=store)
    history = student.training["distill"]["history"]
    assert len(history) == 5
    measured = "kl" if change.get("kl_weight") != 0 else "mse" if change.get("mse_weight") != 0 else "ranking"
    assert history[-1][measured] < history[0][measured]
    assert all(np.isfinite(x).all() for x in vectors(student))


def test_products_in_bfloat16_leave_the_weights_in_float32(teacher: Reranker, store: Path) -> None:
    exact, rounded = (
        distill(teacher, DATA, QUICK.model_copy(update={"dtype": d}), store=store) for d in ("float32", "bfloat16")
    )
    assert {weight.dtype for weight in rounded.predictor.parameters()} == {torch.float32}
    assert rounded.fingerprint != exact.fingerprint
    for kept, found in zip(vectors(exact), vectors(rounded), strict=True):
        cosine = (kept * found).sum(1) / np.linalg.norm(kept, axis=1) / np.linalg.norm(found, axis=1)
        assert cosine.min() > 0.95


def test_labels_alone_put_the_right_documents_first(teacher: Reranker, store: Path) -> None:
    config = DistillConfig(candidates="random:3", epochs=60, mse_weight=0.0, kl_weight=0.0, ranking_weight=0.0)
    student = distill(teacher, DATA, config, store=store)
    history = student.training["distill"]["history"]
    assert history[-1]["label"] < 0.2 < 1.0 < history[0]["label"]
    scores = student.similarity(
        student.encode_query([q.text for q in DATA.split("train")]),
        student.encode_document([d.content for d in DATA.corpus.values()]),
    )
    ids = list(DATA.corpus)
    firsts = [
        ids[row.argmax()] in DATA.relevant("train", q.id) for row, q in zip(scores, DATA.split("train"), strict=True)
    ]
    assert np.mean(firsts) > 0.9


def test_a_drawn_part_of_a_large_corpus_does(
    teacher: Reranker, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabtriever.training.predictor_loop.MOST_DOCUMENTS", 2)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, DATA, QUICK, tmp_path, store=store, progress=StopAt("student", 2))
    resumed = distill(teacher, DATA, QUICK, tmp_path, store=store)
    assert_equal(resumed, distill(teacher, DATA, QUICK, store=store))
    history = resumed.training["distill"]["history"]
    assert history[-1]["label"] < history[0]["label"]


def test_the_student_learns_what_the_teacher_says(teacher: Reranker, store: Path) -> None:
    config = DistillConfig(candidates="all", epochs=60, mse_weight=0.1, label_weight=0.0, learning_rate=3e-3)
    student = distill(teacher, toy_dataset(dev=False), config, store=store)  # the last state, not the best by labels
    train = [query.text for query in DATA.split("train")]
    texts = [document.content for document in DATA.corpus.values()]
    taught = np.stack([teacher.score(query, texts) for query in train])
    learned = student.similarity(student.encode_query(train), student.encode_document(texts))
    assert np.corrcoef(taught.ravel(), learned.ravel())[0, 1] > 0.9


def test_the_teacher_stays_as_it_is(teacher: Reranker, store: Path) -> None:
    before = teacher.score(QUERIES[0], TOOLS), teacher.fingerprint
    student = distill(teacher, DATA, QUICK, store=store)
    assert student.reranker is teacher
    assert np.array_equal(teacher.score(QUERIES[0], TOOLS), before[0])
    assert teacher.fingerprint == before[1]


def test_the_same_seed_gives_the_same_bits(teacher: Reranker, store: Path) -> None:
    first, second, other = (distill(teacher, DATA, DROPOUT, store=store, seed=seed) for seed in (0, 0, 1))
    assert_equal(second, first)
    assert other.fingerprint != first.fingerprint


def test_the_best_epoch_on_dev_is_kept(teacher: Reranker, store: Path) -> None:
    config = QUICK.model_copy(update={"learning_rate": 0.05, "epochs": 12})
    student = distill(teacher, DATA, config, store=store)
    found = student.training["distill"]
    mrrs = [entry["dev_mrr"] for entry in found["history"]]
    assert found["dev_mrr"] == max(mrrs)
    assert found["best_epoch"] == 1 + mrrs.index(max(mrrs))
    dev = [query.text for query in DATA.split("dev")]
    texts = [document.content for document in DATA.corpus.values()]
    scores = student.similarity(student.encode_query(dev), student.encode_document(texts))
    right = [list(DATA.corpus).index(*DATA.relevant("dev", query.id)) for query in DATA.split("dev")]
    ranks = [(row >= row[place]).sum() for row, place in zip(scores, right, strict=True)]
    assert np.mean([1 / rank for rank in ranks]) == pytest.approx(max(mrrs))


@pytest.mark.parametrize(("patience", "epochs"), [(3, 4), (None, 20)])
def test_patience_ends_what_gets_no_better(patience: int | None, epochs: int, teacher: Reranker, store: Path) -> None:
    still = PredictorConfig(zero_init=False)
    config = QUICK.model_copy(update={"learning_rate": 1e-12, "epochs": 20, "patience": patience, "predictor": still})
    found = distill(teacher, DATA, config, store=store).training["distill"]
    assert (found["epochs"], found["best_epoch"]) == (epochs, 1)


def test_without_dev_the_last_epoch_is_kept(teacher: Reranker, store: Path) -> None:
    found = distill(teacher, toy_dataset(dev=False), QUICK, store=store).training["distill"]
    assert found["best_epoch"] == found["epochs"] == 5
    assert "dev_mrr" not in found


def test_the_teacher_is_asked_once(teacher: Reranker, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"candidates": "all"})
    first = distill(teacher, DATA, config, store=tmp_path)
    again = distill(teacher, DATA, config, store=tmp_path, seed=1)
    assert first.training["distill"]["teacher_pairs_computed"] == 36 + 24 * 6  # dev and train
    assert again.training["distill"]["teacher_pairs_computed"] == 0


def test_on_policy_asks_for_the_pairs_that_are_new(teacher: Reranker, tmp_path: Path) -> None:
    few = {"candidates": "random:2", "max_queries": DROPOUT.max_queries}
    base = distill(teacher, DATA, QUICK.model_copy(update=few), store=tmp_path)
    student = distill(teacher, DATA, DROPOUT, store=tmp_path)
    new = student.training["distill"]["pairs"] - base.training["distill"]["pairs"]
    assert 0 < student.training["distill"]["teacher_pairs_computed"] <= new


class Said(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_a_collapse_is_said(teacher: Reranker, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rabtriever.training import predictor_loop

    progress = Said()
    monkeypatch.setattr(predictor_loop, "effective_rank", lambda x: 1.0)
    distill(teacher, DATA, QUICK, store=store, progress=progress)
    assert any("collapsed" in line for line in progress.lines)


def test_queries_without_judgements_are_labelled_by_the_teacher(teacher: Reranker, store: Path) -> None:
    more = {f"more-{i}": Query(f"more-{i}", f"number {i}: {text}") for i, text in enumerate(TOOLS)}
    dataset = Dataset("more", DATA.corpus, {**DATA.queries, **more}, DATA.qrels)
    few, all_of_them = (
        distill(teacher, dataset, QUICK.model_copy(update={"unjudged_queries": count}), store=store)
        for count in (2, 99)
    )
    assert [student.training["distill"]["queries"] for student in (few, all_of_them)] == [24 + 2, 24 + 6]
    assert few.training["distill"]["pairs"] == 24 * 4 + 2 * 3  # no right document beside the three random ones
    plain = distill(teacher, dataset, QUICK, store=store)
    assert not np.array_equal(few.encode_query(QUERIES), plain.encode_query(QUERIES))
    assert np.array_equal(plain.encode_query(QUERIES), distill(teacher, DATA, QUICK, store=store).encode_query(QUERIES))
    with pytest.raises(InputError, match="no query without judgements"):
        distill(teacher, DATA, QUICK.model_copy(update={"unjudged_queries": 1}), store=store)


def test_labelled_queries_teach_without_a_pass_of_the_teacher(teacher: Reranker, store: Path) -> None:
    few = QUICK.model_copy(update={"max_queries": 6, "batch_queries": 2, "epochs": 20, "learning_rate": 1e-2})
    plain, more = (distill(teacher, DATA, few.model_copy(update={"labelled_queries": n}), store=store) for n in (0, 99))
    assert (plain.training["distill"]["queries"], more.training["distill"]["queries"]) == (6, 24)
    assert plain.training["distill"]["pairs"] == more.training["distill"]["pairs"] == 6 * 4
    queries = DATA.split("train")

    def right(student: Retriever) -> int:
        documents = student.encode_document([document.content for document in DATA.corpus.values()])
        best = student.similarity(student.encode_query([q.text for q in queries]), documents).argmax(1)
        return sum(list(DATA.corpus)[i] in DATA.relevant("train", q.id) for q, i in zip(queries, best, strict=True))

    assert right(more) > right(plain) + 4


def test_labelled_queries_that_cannot_teach_are_refused(teacher: Reranker, store: Path) -> None:
    with pytest.raises(InputError, match="judges every training query"):
        distill(teacher, DATA, QUICK.model_copy(update={"labelled_queries": 1}), store=store)
    with pytest.raises(InputError, match="label_weight is 0"):
        silent = {"labelled_queries": 1, "max_queries": 6, "label_weight": 0.0}
        distill(teacher, DATA, QUICK.model_copy(update=silent), store=store)


def test_nothing_to_learn_from_is_refused(teacher: Reranker, store: Path) -> None:
    with pytest.raises((InputError, ValidationError), match="all 0"):
        nothing = {"mse_weight": 0.0, "kl_weight": 0.0, "ranking_weight": 0.0, "label_weight": 0.0}
        distill(teacher, DATA, QUICK.model_copy(update=nothing), store=store)


def test_no_training_queries_is_refused(teacher: Reranker, store: Path) -> None:
    empty = Dataset("empty", DATA.corpus, DATA.queries, {"test": DATA.qrels["test"]})
    with pytest.raises(InputError, match="no split 'train'"):
        distill(teacher, empty, QUICK, store=store)


def test_a_loss_that_is_no_number_ends_the_training(teacher: Reranker, store: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(InputError, match="loss became") as caught:
        distill(teacher, DATA, config, tmp_path, store=store)
    assert "learning_rate" in caught.value.hint


# --- a stop, and going on


@pytest.fixture(scope="module")
def uninterrupted(teacher: Reranker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[DistillConfig], Retriever]:
    done: dict[str, Retriever] = {}

    def get(config: DistillConfig) -> Retriever:
        key = config.model_dump_json()
        if key not in done:
            done[key] = distill(teacher, DATA, config, store=tmp_path_factory.mktemp("own"), seed=3)
        return done[key]

    return get


@pytest.mark.parametrize("stops", [(1,), (2,), (4,), (5,), (1, 3)], ids=str)
@CONFIGS
def test_a_stop_after_any_epoch_changes_no_bit(
    stops: tuple[int, ...], config: DistillConfig, teacher: Reranker, uninterrupted: Any, tmp_path: Path
) -> None:
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3, progress=StopAt("student", stop))
    assert_equal(distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3), uninterrupted(config))


def test_a_stopped_run_goes_on_with_its_own_settings_only(teacher: Reranker, tmp_path: Path) -> None:
    config = DistillConfig(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3, progress=StopAt("student", 1))
    with pytest.raises(InputError, match="kl_weight was 1.0 and is now 2.0"):
        distill(teacher, DATA, DistillConfig(epochs=3, kl_weight=2.0), tmp_path / "run", store=tmp_path, seed=3)


@pytest.mark.parametrize("batch", [1, 4, 8, 14])
@CONFIGS
def test_a_stop_within_an_epoch_changes_no_bit(
    batch: int,
    config: DistillConfig,
    teacher: Reranker,
    uninterrupted: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a kill does: whatever was done since the last epoch is lost, and done again."""
    plain, calls = PredictorLoop._loss, []

    def loss(loop: PredictorLoop, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == batch:
            raise KeyboardInterrupt
        return plain(loop, *arguments)

    monkeypatch.setattr(PredictorLoop, "_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3)
    assert_equal(distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3), uninterrupted(config))


@CONFIGS
def test_a_finished_run_is_not_repeated(
    config: DistillConfig, teacher: Reranker, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = uninterrupted(config)  # trained before that is forbidden, whichever test comes first
    distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3)
    monkeypatch.setattr(PredictorLoop, "_epoch", lambda *_: pytest.fail("trained again"))
    again = distill(teacher, DATA, config, tmp_path / "run", store=tmp_path, seed=3)
    assert again.training["distill"]["teacher_pairs_computed"] == 0
    assert_equal(again, expected)


def test_a_full_disk_keeps_the_epoch_before(
    teacher: Reranker, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = checkpoint.save_file, []

    def full(tensors: Any, path: Path, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(tensors, path, **options)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match="disk is full"):
        distill(teacher, DATA, DROPOUT, tmp_path / "run", store=tmp_path, seed=3)
    monkeypatch.undo()
    progress = Said()
    resumed = distill(teacher, DATA, DROPOUT, tmp_path / "run", store=tmp_path, seed=3, progress=progress)
    assert "student: goes on from epoch 2" in progress.lines
    assert_equal(resumed, uninterrupted(DROPOUT))


def test_a_state_of_another_predictor_is_refused(teacher: Reranker, store: Path, tmp_path: Path) -> None:
    distill(teacher, DATA, DROPOUT, tmp_path, store=store)
    for predictor in (PredictorConfig(), PredictorConfig(rank=4, width=16)):
        (tmp_path / "run.json").unlink(missing_ok=True)  # as if an earlier version had written the folder
        with pytest.raises(MismatchError, match="state of other parameters"):
            distill(teacher, DATA, DROPOUT.model_copy(update={"predictor": predictor}), tmp_path, store=store)


def test_the_random_numbers_of_the_caller_do_not_matter(teacher: Reranker, store: Path) -> None:
    torch.manual_seed(11)
    first = distill(teacher, DATA, DROPOUT, store=store)
    torch.manual_seed(12)
    assert_equal(distill(teacher, DATA, DROPOUT, store=store), first)

"""Stage I: what is trained, on what, and that a stop at any step changes nothing of the result."""

from __future__ import annotations

import errno
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from closeness import assert_same
from rabtriever import Reranker
from rabtriever.backbone import Backbone
from rabtriever.data import Dataset, Document, Query
from rabtriever.errors import InputError, MismatchError
from rabtriever.progress import PlainProgress
from rabtriever.training import checkpoint
from rabtriever.training import step as step_module
from rabtriever.training import teacher as module
from rabtriever.training.budget import Budget
from rabtriever.training.callback import patience_is_out
from rabtriever.training.candidates import Bm25Negatives, mixture
from rabtriever.training.config import LoraConfig, TeacherConfig
from rabtriever.training.plan import Plan
from rabtriever.training.step import Step, answer_losses, apart_loss, step_losses
from rabtriever.training.teacher import dev_groups, dev_mrr
from rabtriever.training.trained_weights import TrainedWeights
from rabtriever.training.trainer import TeacherTrainer, last_checkpoint
from tiny_models import FAMILIES
from toy_data import SHORT, StopAt, toy_dataset

FULL = TeacherConfig(
    freeze_layers=1,
    candidates="random:3",
    queries_per_step=4,
    epochs=1.5,
    learning_rate=1e-2,
    evaluations=3,
    patience=9,
    dev_queries=6,
)
LORA = FULL.model_copy(update={"lora": LoraConfig(rank=4, dropout=0.2)})
STEPS = 9  # of either: 24 queries, 4 a step, an epoch and a half; dev MRR is measured after 3, 6 and 9
CONFIGS = pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])

DATA = toy_dataset()
PAIRS = [(query.text, document.content) for query in DATA.split("test") for document in DATA.corpus.values()]
TRAIN = [(query.text, document.content) for query in DATA.split("train") for document in DATA.corpus.values()]
SIGNS = np.array([1 if i in DATA.relevant("train", q.id) else -1 for q in DATA.split("train") for i in DATA.corpus])

NewTeacher = Callable[..., Reranker]


@pytest.fixture
def new_teacher(tiny_folder: Callable[..., Path]) -> NewTeacher:
    def load(family: str = "llama", dtype: Any = "float32") -> Reranker:
        return Reranker.from_pretrained(tiny_folder(family), prompt=SHORT, dtype=dtype)

    return load


def outcome(teacher: Reranker) -> tuple[Any, ...]:
    """All that a training leaves behind, but for the time it took."""
    report = {key: value for key, value in teacher.training["teacher"].items() if key != "seconds"}
    weights = {name: tensor.clone() for name, tensor in teacher.backbone.model.state_dict().items()}
    return weights, teacher.score_pairs(PAIRS), teacher.fingerprint, report


def assert_equal(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for name, tensor in expected[0].items():
        assert torch.equal(found[0][name], tensor), name
    assert np.array_equal(found[1], expected[1])
    assert found[2] == expected[2]
    assert found[3] == expected[3]


# --- what is trained


@CONFIGS
def test_the_same_seed_gives_the_same_bits(config: TeacherConfig, new_teacher: NewTeacher) -> None:
    first, second, other = (outcome(new_teacher().fit(DATA, config, seed=seed)) for seed in (0, 0, 1))
    assert_equal(second, first)
    assert other[2] != first[2]


@pytest.mark.parametrize("family", FAMILIES)
@CONFIGS
def test_only_the_upper_layers_are_trained(config: TeacherConfig, family: str, new_teacher: NewTeacher) -> None:
    """Embeddings and head stay: the answer rows mean the same before and after, and to teacher and student."""
    teacher = new_teacher(family)
    before = {name: tensor.clone() for name, tensor in teacher.backbone.model.state_dict().items()}
    rows = teacher.rows
    teacher.fit(DATA, config.model_copy(update={"epochs": 0.2, "evaluations": 0}))
    after = teacher.backbone.model.state_dict()
    assert after.keys() == before.keys()
    layers = {name: int(part) for name in before for part in name.split(".") if part.isdigit()}
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert {layers.get(name) for name in changed} == {1, 2}
    assert torch.equal(teacher.rows.weight, rows.weight)
    assert not any(p.requires_grad for p in teacher.backbone.model.parameters())
    assert not teacher.backbone.model.training


def test_bfloat16_is_trained_in_float32_and_given_back(new_teacher: NewTeacher) -> None:
    teacher = new_teacher(dtype="bfloat16")
    dtypes = {name: tensor.dtype for name, tensor in teacher.backbone.model.named_parameters()}
    buffers = {name: (tensor.dtype, tensor.clone()) for name, tensor in teacher.backbone.model.named_buffers()}
    teacher.fit(DATA, FULL)
    assert {name: tensor.dtype for name, tensor in teacher.backbone.model.named_parameters()} == dtypes
    for name, tensor in teacher.backbone.model.named_buffers():
        assert tensor.dtype == buffers[name][0]
        assert torch.equal(tensor, buffers[name][1])


@pytest.mark.parametrize("candidates", ["all", "random:2", "mined:1", "bm25:2"])
def test_every_policy_learns(candidates: str, new_teacher: NewTeacher) -> None:
    config = FULL.model_copy(update={"candidates": candidates, "epochs": 6, "evaluations": 0})
    losses: list[float] = []
    teacher = new_teacher()
    report = teacher.fit(DATA, config).training["teacher"]
    train = [
        (q.text, d.content, d.id in DATA.relevant("train", q.id))
        for q in DATA.split("train")
        for d in DATA.corpus.values()
    ]
    for model in (new_teacher(), teacher):
        scores = torch.from_numpy(model.score_pairs([pair[:2] for pair in train]))
        right = torch.tensor([pair[2] for pair in train])
        losses.append(float(torch.nn.functional.softplus(torch.where(right, -scores, scores)).mean()))
    assert report["steps"] == 36
    assert report["pairs"] == {"all": 6, "random:2": 3, "mined:1": 2, "bm25:2": 3}[candidates] * 24 * 6
    assert report["final_loss"] < 0.7 * math.log(380)
    assert losses[1] < losses[0]


def test_dpo_widens_the_margin(new_teacher: NewTeacher) -> None:
    """Right answers gain on wrong ones, compared with the model before."""
    config = FULL.model_copy(
        update={
            "objective": "dpo",
            "apart_weight": 0.0,
            "ranking_weight": 0.0,
            "epochs": 4,
            "evaluations": 0,
            "dpo_beta": 0.5,
        }
    )
    train = [
        (q.text, d.content, 1 if d.id in DATA.relevant("train", q.id) else -1)
        for q in DATA.split("train")
        for d in DATA.corpus.values()
    ]
    signs = np.array([pair[2] for pair in train])
    before, after = new_teacher(), new_teacher().fit(DATA, config)
    shift = signs * (after.score_pairs([p[:2] for p in train]) - before.score_pairs([p[:2] for p in train]))
    assert shift.mean() > 0.5
    assert after.training["teacher"]["final_loss"] < math.log(2)  # what it is where nothing has changed yet


def test_apart_is_the_softmax_of_the_cosines(new_teacher: NewTeacher) -> None:
    backbone = new_teacher().backbone
    queries, documents = [[5, 6], [7]], [[8, 9, 10], [11], [12, 13]]
    right = torch.tensor([[True, False, True], [False, True, False]])
    cosines = torch.nn.functional.cosine_similarity(
        backbone.last_states(queries)[:, None], backbone.last_states(documents)[None], dim=2
    )
    shares = torch.softmax(20 * cosines, dim=1)
    expected = -((shares[0, 0].log() + shares[0, 2].log()) / 2 + shares[1, 1].log()) / 2
    found = apart_loss(backbone, queries, documents, right, 4096)
    assert float(found.detach()) == pytest.approx(float(expected), abs=1e-5)
    found.backward()
    assert all(float(layer.self_attn.q_proj.weight.grad.abs().max()) > 0 for layer in backbone.layers)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_what_is_read_apart_in_batches_has_the_same_loss_and_gradients(
    dropout: float, new_teacher: NewTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As batches that are kept for the backward pass instead of read again; without dropout, as one batch too."""
    teacher, lora = new_teacher(), LoraConfig(rank=4, dropout=dropout)
    step = Step.read(teacher.prompt, Plan(DATA, DATA.split("train"), FULL, 0, teacher.score_pairs, None), 0)
    trained = TrainedWeights(teacher.backbone, FULL.model_copy(update={"lora": lora}), 0)
    for parameter in trained.parameters.values():  # half of an adapter starts at zero, and hides the other half
        parameter.data.normal_(std=0.1)
    trained.adapted.train()

    def found(batch_tokens: int) -> Tensor:
        torch.manual_seed(1)
        loss = apart_loss(teacher.backbone, step.queries, step.documents, step.matches, batch_tokens)
        return torch.cat([loss.view(1), *(g.flatten() for g in torch.autograd.grad(loss, trained.parameters.values()))])

    again = found(60)
    if not dropout:
        assert_same(again, found(4096))
    monkeypatch.setattr(step_module, "checkpoint", lambda read, *given, use_reentrant: read(*given))
    assert torch.equal(again.detach(), found(60).detach())
    assert float(again.detach().abs().max()) > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_steps_loss_adds_what_is_read_apart_by_its_weight(weight: float, new_teacher: NewTeacher) -> None:
    teacher = new_teacher()
    config = FULL.model_copy(update={"apart_weight": weight})
    step = Step.read(teacher.prompt, Plan(DATA, DATA.split("train"), config, 0, teacher.score_pairs, None), 0)
    answers = (teacher.prompt.true_id, teacher.prompt.false_id)
    found = float(sum(loss.detach() for loss in step_losses(teacher.backbone, step, answers, config, None)))
    pairs = answer_losses(teacher.backbone, step.pairs, step.right, step.groups, answers, config, None)
    apart = apart_loss(teacher.backbone, step.queries, step.documents, step.matches, config.batch_tokens)
    assert found == pytest.approx(float(sum(loss.detach() for loss in pairs)) + weight * float(apart.detach()), 1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_with_few_labels_it_says_what_reading_apart_is_worth(
    weight: float, new_teacher: NewTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    config = FULL.model_copy(update={"apart_weight": weight, "epochs": 0.1, "evaluations": 0})
    new_teacher().fit(DATA, config, progress=PlainProgress(sys.stderr))
    assert ("few labelled queries as 24; teacher.apart_weight=0" in capsys.readouterr().err) == bool(weight)


def test_dpo_starts_undecided(new_teacher: NewTeacher) -> None:
    teacher = new_teacher()
    config = FULL.model_copy(update={"objective": "dpo", "ranking_weight": 0.0})
    reference = Backbone(teacher.backbone.model, teacher.backbone.tokenizer)
    losses = list(
        answer_losses(teacher.backbone, [[5, 6], [7]], torch.tensor([True, False]), [0, 0], (3, 4), config, reference)
    )
    assert float(sum(losses).detach()) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("ranking_weight", [0.0, 0.7])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_the_batch_changes_neither_loss_nor_gradients(
    objective: str, ranking_weight: float, new_teacher: NewTeacher
) -> None:
    """Many small batches and one large one are the same step; the ranking keeps a query's pairs together."""
    teacher = new_teacher()
    reference = new_teacher().backbone if objective == "dpo" else None
    if reference is not None:
        with torch.no_grad():  # DPO's gradient at the reference itself would hide errors
            for parameter in reference.layers.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    ids = [teacher.prompt.document_ids(d) + teacher.prompt.query_ids(q) for q, d in PAIRS[:11]]
    right = torch.arange(11) % 3 == 0
    groups = [0, 1, 0, 2, 1, 1, 2, 2, 2, 3, 1]
    found = []
    for budget in (1, 120, 100_000):
        config = FULL.model_copy(
            update={"objective": objective, "batch_tokens": budget, "ranking_weight": ranking_weight}
        )
        model = teacher.backbone.model.requires_grad_(True)
        model.zero_grad()
        total, batches = 0.0, 0
        for loss in answer_losses(teacher.backbone, ids, right, groups, (33, 214), config, reference):
            loss.backward()
            total, batches = total + float(loss.detach()), batches + 1
        found.append((total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), batches))
    most = 4 if ranking_weight else 11
    assert [batches for _, _, batches in found] == [most, found[1][2], 1]
    assert 1 < found[1][2] <= most
    for total, gradients, _ in found[:2]:
        assert total == pytest.approx(found[2][0], rel=1e-5)
        assert_same(gradients, found[2][1])


@CONFIGS
def test_the_batch_budget_hardly_changes_a_whole_training(config: TeacherConfig, new_teacher: NewTeacher) -> None:
    config = config.model_copy(update={"lora": config.lora and LoraConfig(rank=4), "epochs": 0.5})
    small, large = (
        new_teacher().fit(DATA, config.model_copy(update={"batch_tokens": budget})) for budget in (1, 100_000)
    )
    assert_same(small.score_pairs(PAIRS), large.score_pairs(PAIRS), 5e-3)  # Adam divides rounding by itself


def test_all_layers_cannot_be_frozen(new_teacher: NewTeacher) -> None:
    with pytest.raises(InputError, match="leaves nothing to train in 3 layers") as caught:
        new_teacher().fit(DATA, FULL.model_copy(update={"freeze_layers": 3}))
    assert "at most 2" in caught.value.hint


@pytest.mark.parametrize("text", ["1k", "3k tokens"])
def test_a_budget_of_tokens_bounds_the_steps(text: str, new_teacher: NewTeacher) -> None:
    budget = Budget.parse(text)
    report = new_teacher().fit(DATA, FULL, budget=budget).training["teacher"]
    assert budget.tokens is not None
    assert 0 < report["tokens"] <= 1.3 * budget.tokens
    assert report["steps"] < STEPS


def test_a_budget_of_a_moment_still_trains_a_step(new_teacher: NewTeacher) -> None:
    report = new_teacher().fit(DATA, FULL, budget=Budget(seconds=1e-3)).training["teacher"]
    assert report["steps"] == 1


@pytest.mark.parametrize(
    ("patience", "passes", "fastest"),
    [(0.0, 2, 15.0), (35.0, 3, 1.0), (1e3, 5, 1.0)],  # of passes that take 20, 15, 1, 2 and 3 seconds
)
def test_a_busy_moment_does_not_stand_for_the_whole_training(
    patience: float, passes: int, fastest: float, new_teacher: NewTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule of a budget of time rests on it: measured once, it was wrong by a factor of ten."""
    clock, seconds = [0.0], [20.0, 15.0, 1.0, 2.0, 3.0]
    durations = iter(seconds)

    def losses(*_: Any, **__: Any) -> list[Tensor]:
        clock[0] += next(durations)
        return []

    monkeypatch.setattr(step_module, "step_losses", losses)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    teacher = new_teacher()
    trained = TrainedWeights(teacher.backbone, FULL, 0)
    step = Step.read(teacher.prompt, Plan(DATA, DATA.split("train"), FULL, 0, teacher.score_pairs, None), 0)
    speed = module._tokens_per_second(trained, step, teacher, FULL, patience)
    trained.abandon(teacher)
    assert len(list(durations)) == len(seconds) - passes
    assert speed == step.tokens / fastest


def test_a_loss_that_is_no_number_ends_the_training(new_teacher: NewTeacher, tmp_path: Path) -> None:
    teacher = new_teacher()
    with torch.no_grad():
        teacher.backbone.layers[0].mlp.up_proj.weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(InputError, match="loss became nan at step 1") as caught:
        teacher.fit(DATA, FULL, tmp_path)
    assert "learning_rate" in caught.value.hint
    assert last_checkpoint(tmp_path) is None


# --- the weights of the moment


def test_mining_and_dev_see_the_weights_as_they_are(new_teacher: NewTeacher) -> None:
    """No dropout, although it is in training; no documents read by former weights, although they are kept."""
    teacher = new_teacher()
    trained = TrainedWeights(teacher.backbone, LORA, seed=0)
    teacher.backbone.model.train()
    before = trained.score(teacher, PAIRS)
    teacher.backbone.model.train()
    assert np.array_equal(trained.score(teacher, PAIRS), before)
    with torch.no_grad():
        for parameter in trained.parameters.values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    after = trained.score(teacher, PAIRS)
    assert np.abs(after - before).max() > 0.01
    trained.settle(teacher)
    assert_same(teacher.score_pairs(PAIRS), after, 1e-3)  # merged adapters add up in another order


def test_an_epoch_is_drawn_when_it_begins(new_teacher: NewTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise later epochs would be mined by a model that has not learned yet."""
    asked: list[int] = []
    plain = Plan.step
    monkeypatch.setattr(Plan, "step", lambda plan, number: asked.append(number) or plain(plan, number))
    new_teacher().fit(DATA, FULL)
    assert asked[-STEPS:] == list(range(STEPS))


def test_the_best_state_on_dev_is_kept(new_teacher: NewTeacher) -> None:
    teacher = new_teacher()
    report = teacher.fit(DATA, FULL.model_copy(update={"epochs": 3, "learning_rate": 3e-2, "evaluations": 6})).training[
        "teacher"
    ]
    by_step = dict(report["dev_mrr_by_step"])
    assert len(by_step) == 6
    assert report["dev_mrr"] == max(by_step.values())
    assert by_step[report["best_step"]] == report["dev_mrr"]
    assert len(set(by_step.values())) > 1, "nothing to choose from proves nothing"
    assert dev_mrr(teacher.score_pairs, dev_groups(DATA, FULL, 0)) == report["dev_mrr"]


def test_dev_meets_hard_documents_where_training_does() -> None:
    corpus = {f"d{i}": Document(f"d{i}", f"put down the apple {i}" if i < 16 else f"word{i}") for i in range(200)}
    queries = {split: [Query(f"{split}-{i}", "throw away the apple") for i in range(8)] for split in ("train", "dev")}
    qrels = {split: {query.id: {"d0": 1} for query in found} for split, found in queries.items()}
    dataset = Dataset("toy", corpus, {q.id: q for found in queries.values() for q in found}, qrels)

    def near(candidates: str) -> list[int]:
        config = FULL.model_copy(update={"candidates": candidates, "dev_candidates": 7, "dev_queries": 8})
        mix = mixture(candidates, dataset)
        groups = dev_groups(dataset, config, 0, mix)
        assert all(len(set(documents)) == 7 and right == 1 for _, documents, right in groups)
        assert groups == dev_groups(dataset, config, 0, mix)
        return [sum("apple" in document for document in documents[1:]) for _, documents, _ in groups]

    assert min(near("mixed:2")) >= 3
    assert min(near("bm25:2")) >= 3
    assert max(near("random:2")) < 3


@pytest.mark.parametrize(("candidates", "hard"), [("random:2", None), ("balanced:2", Bm25Negatives)])
def test_training_measures_dev_on_the_documents_that_it_draws_from(
    candidates: str, hard: type | None, new_teacher: NewTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    plain = module.dev_groups

    def noted(dataset: Dataset, config: TeacherConfig, seed: int, found: Any) -> list[tuple[str, list[str], int]]:
        given.append(found)
        return plain(dataset, config, seed, found)

    monkeypatch.setattr(module, "dev_groups", noted)
    new_teacher().fit(DATA, FULL.model_copy(update={"candidates": candidates}))
    assert [None if found is None else type(found.hard) for found in given] == [hard]


@pytest.mark.parametrize("mrrs", [(0.9, 0.5, 0.2), (0.2, 0.9, 0.5), (0.2, 0.5, 0.9), (0.4, 0.2, 0.9), (0.5, 0.5, 0.5)])
@CONFIGS
def test_whichever_evaluation_is_best_is_the_one_that_is_kept(
    config: TeacherConfig,
    mrrs: tuple[float, ...],
    new_teacher: NewTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remaining = list(mrrs)
    monkeypatch.setattr(module, "dev_mrr", lambda *_: remaining.pop(0))
    teacher = new_teacher()
    report = teacher.fit(DATA, config, tmp_path).training["teacher"]
    best = 3 + 3 * max(place for place, mrr in enumerate(mrrs) if mrr == max(mrrs))  # of equal ones the last
    assert report["best_step"] == best
    kept = load_file(tmp_path / f"checkpoint-{best}" / "state.safetensors")
    weights = {name.removeprefix("weight."): x for name, x in kept.items() if name.startswith("weight.")}
    trained = dict(teacher.backbone.model.named_parameters())
    if teacher.adapter is not None:  # stored without the adapter's own name, under the whole model's
        for name, tensor in teacher.adapter.items():
            trained[name.removeprefix("base_model.model.").replace(".weight", ".default.weight")] = tensor
    assert weights
    for name, tensor in weights.items():
        assert torch.equal(trained[name], tensor), name


def test_patience_ends_a_training_that_gets_no_better(new_teacher: NewTeacher, tmp_path: Path) -> None:
    config = FULL.model_copy(update={"epochs": 5, "learning_rate": 1e-9, "evaluations": 30, "patience": 2})
    step = TeacherTrainer.training_step

    def slow(self: TeacherTrainer, *given: Any) -> Tensor:
        time.sleep(0.4)
        return step(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TeacherTrainer, "training_step", slow)
        report = new_teacher().fit(DATA, config, tmp_path).training["teacher"]
    assert report["steps"] == 3
    assert report["best_step"] == 3  # no worse than the first, and it has learnt longer
    # Killed before the result was saved, and run again: it is over, not a step is added.
    again = new_teacher().fit(DATA, config, tmp_path).training["teacher"]
    assert {**again, "seconds": 0} == {**report, "seconds": 0}
    assert again["seconds"] >= 1.2  # those of the first run


@pytest.mark.parametrize(
    ("mrrs", "patience", "out"),
    [([], 1, False), ([0.5], 1, False), ([0.5, 0.5], 1, True), ([0.5, 0.4, 0.6], 2, False), ([0.5, 0.4, 0.5], 2, True)],
)
def test_patience_is_read_off_the_log(mrrs: list[float], patience: int, out: bool) -> None:
    log = [entry for mrr in mrrs for entry in ({"loss": 1.0}, {"eval_mrr": mrr})]
    assert patience_is_out(log, patience) is out


def test_ties_count_against_the_right_document() -> None:
    groups = [("q", ["right", "wrong", "wrong"], 1), ("q", ["right", "right", "wrong"], 2)]
    assert dev_mrr(lambda pairs: np.zeros(len(pairs), np.float32), groups) == (1 / 3 + 1 / 2) / 2
    assert dev_mrr(lambda pairs: np.array([2, 1, 0, 0, 3, 1], np.float32), groups) == 1


def test_without_dev_the_last_state_is_kept(new_teacher: NewTeacher) -> None:
    report = new_teacher().fit(toy_dataset(dev=False), FULL).training["teacher"]
    assert report["dev_mrr"] is None
    assert report["steps"] == STEPS


# --- k steps, a stop, a resume and k steps are 2k steps


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder: Callable[..., Path]) -> Callable[[TeacherConfig], tuple[Any, ...]]:
    done: dict[str, tuple[Any, ...]] = {}

    def get(config: TeacherConfig) -> tuple[Any, ...]:
        key = config.model_dump_json()
        if key not in done:
            teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
            done[key] = outcome(teacher.fit(DATA, config, seed=7))
        return done[key]

    return get


@pytest.mark.parametrize("stops", [(1,), (3,), (5,), (9,), (2, 3, 7)], ids=str)
@CONFIGS
def test_a_stop_at_any_step_changes_no_bit(
    stops: tuple[int, ...], config: TeacherConfig, new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path
) -> None:
    """Ctrl-C after some step, once or more often; step 3 is one after which dev MRR is due, step 9 the last."""
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            new_teacher().fit(DATA, config, tmp_path, seed=7, progress=StopAt("teacher", stop))
        newest = last_checkpoint(tmp_path)
        assert newest is not None
        assert newest.name == f"checkpoint-{stop}"
    assert_equal(outcome(new_teacher().fit(DATA, config, tmp_path, seed=7)), uninterrupted(config))


def test_a_stopped_training_goes_on_with_its_own_settings_only(new_teacher: NewTeacher, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        new_teacher().fit(DATA, LORA, tmp_path, seed=7, progress=StopAt("teacher", 2))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=r"learning_rate was .* and is now 0\.5"):
        new_teacher().fit(DATA, LORA.model_copy(update={"learning_rate": 0.5}), tmp_path, seed=7)
    with pytest.raises(InputError, match="seed was 7 and is now 8"):
        new_teacher().fit(DATA, LORA, tmp_path, seed=8)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_stop_changes_no_bit_of_a_mined_training(new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path) -> None:
    config = LORA.model_copy(update={"candidates": "mined:1"})
    for stop in (2, 6, 8):  # within the first epoch, at its end, within the second
        with pytest.raises(KeyboardInterrupt):
            new_teacher().fit(DATA, config, tmp_path, seed=7, progress=StopAt("teacher", stop))
    assert_equal(outcome(new_teacher().fit(DATA, config, tmp_path, seed=7)), uninterrupted(config))


def test_a_stop_changes_no_bit_of_dpo(new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path) -> None:
    config = FULL.model_copy(update={"objective": "dpo"})
    with pytest.raises(KeyboardInterrupt):
        new_teacher().fit(DATA, config, tmp_path, seed=7, progress=StopAt("teacher", 4))
    assert_equal(outcome(new_teacher().fit(DATA, config, tmp_path, seed=7)), uninterrupted(config))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@CONFIGS
def test_a_stopped_training_leaves_the_teacher_as_it_was(
    config: TeacherConfig, dtype: str, new_teacher: NewTeacher, tmp_path: Path
) -> None:
    """In a notebook the same object is used again: it must score as before, and go on like any other."""
    teacher, fresh = new_teacher(dtype=dtype), new_teacher(dtype=dtype)
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            teacher.fit(DATA, config, tmp_path / "run", seed=7, progress=StopAt("teacher", stop))
        assert np.array_equal(teacher.score_pairs(PAIRS), fresh.score_pairs(PAIRS))
        assert teacher.fingerprint == fresh.fingerprint
        assert teacher.backbone.model.state_dict().keys() == fresh.backbone.model.state_dict().keys()
        assert teacher.backbone.dtype == fresh.backbone.dtype
        assert not any(p.requires_grad or p.grad is not None for p in teacher.backbone.model.parameters())
    assert_equal(outcome(teacher.fit(DATA, config, tmp_path / "run", seed=7)), outcome(fresh.fit(DATA, config, seed=7)))


@CONFIGS
def test_a_finished_training_is_not_repeated(
    config: TeacherConfig, new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_teacher().fit(DATA, config, tmp_path, seed=7)
    from rabtriever.training import trainer

    expected = uninterrupted(config)
    monkeypatch.setattr(trainer, "step_losses", lambda *_: pytest.fail("trained again"))
    assert_equal(outcome(new_teacher().fit(DATA, config, tmp_path, seed=7)), expected)


@pytest.mark.parametrize("damage", ["state cut short", "state missing", "no log"])
def test_a_checkpoint_cut_short_is_passed_over(
    damage: str, new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path
) -> None:
    """Killed while it wrote: the checkpoint before is used, and the result is the same."""
    with pytest.raises(KeyboardInterrupt):
        new_teacher().fit(DATA, LORA, tmp_path, seed=7, progress=StopAt("teacher", 4))
    newest = tmp_path / "checkpoint-4"
    if damage == "state missing":
        (newest / "state.safetensors").unlink()
    elif damage == "no log":
        (newest / "trainer_state.json").unlink()
    else:
        log = newest / "trainer_state.json"
        log.write_text(log.read_text()[:100])
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert_equal(outcome(new_teacher().fit(DATA, LORA, tmp_path, seed=7)), uninterrupted(LORA))


@pytest.mark.parametrize("place", ["weights", "log"])
def test_a_full_disk_keeps_the_checkpoint_before(
    place: str, new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainerState

    target, name = (checkpoint, "save_file") if place == "weights" else (TrainerState, "save_to_json")
    plain, calls = getattr(target, name), []

    def full(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            path = Path(next(a for a in arguments if isinstance(a, str | Path)))
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(*arguments, **options)

    monkeypatch.setattr(target, name, full)
    with pytest.raises(InputError, match="disk is full"):
        new_teacher().fit(DATA, LORA, tmp_path, seed=7)
    monkeypatch.undo()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert not (tmp_path / "checkpoint-6").exists()
    assert_equal(outcome(new_teacher().fit(DATA, LORA, tmp_path, seed=7)), uninterrupted(LORA))


def test_the_folder_may_move_between_stop_and_resume(
    new_teacher: NewTeacher, uninterrupted: Any, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        new_teacher().fit(DATA, FULL, tmp_path / "here", seed=7, progress=StopAt("teacher", 7))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert_equal(outcome(new_teacher().fit(DATA, FULL, tmp_path / "there", seed=7)), uninterrupted(FULL))


def test_a_state_of_other_parameters_is_refused(new_teacher: NewTeacher, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        new_teacher().fit(DATA, LORA, tmp_path, progress=StopAt("teacher", 2))
    for other in (FULL, LORA.model_copy(update={"lora": LoraConfig(rank=2)})):
        (tmp_path / "run.json").unlink(missing_ok=True)  # as if an earlier version had written the folder
        with pytest.raises(MismatchError, match="state of other parameters"):
            new_teacher().fit(DATA, other, tmp_path)


def test_checkpoints_are_no_pickles(new_teacher: NewTeacher, tmp_path: Path) -> None:
    new_teacher().fit(DATA, LORA, tmp_path)
    files = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    assert json.loads((tmp_path / "steps.json").read_text())["steps"] == STEPS


def test_nothing_is_left_behind_without_a_folder(
    new_teacher: NewTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new_teacher().fit(DATA, FULL)
    assert list(tmp_path.iterdir()) == []

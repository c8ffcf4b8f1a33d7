"""Both stages in one call: stopped anywhere and called again, it ends with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from rabtriever import Reranker, Retriever
from rabtriever.errors import InputError
from rabtriever.predictor import PredictorConfig
from rabtriever.training.budget import Budget
from rabtriever.training.config import DistillConfig, LoraConfig, TeacherConfig, TrainConfig
from rabtriever.training.pipeline import TrainResult, train
from rabtriever.training.predictor_loop import PredictorLoop
from rabtriever.training.trainer import TeacherTrainer
from toy_data import NEEDS, SHORT, TOOLS, StopAt, toy_dataset

DATA = toy_dataset()
PAIRS = [(need, tool) for need in NEEDS for tool in TOOLS]
LORA = LoraConfig(rank=4, dropout=0.1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a store of its own, so that none profits from what another computed."""
    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def config(tiny_folder: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        base=str(tiny_folder("llama")),
        dtype="float32",
        prompt=SHORT,
        teacher=TeacherConfig(
            lora=LORA,
            freeze_layers=1,
            candidates="random:3",
            queries_per_step=4,
            epochs=1,
            evaluations=2,
            dev_queries=6,
        ),
        distill=DistillConfig(
            candidates="on-policy:2", refresh_epochs=2, epochs=4, predictor=PredictorConfig(dropout=0.2)
        ),
    )


def test_a_trained_model_is_trained_further_with_its_own_prompt(config: TrainConfig, tmp_path: Path) -> None:
    first = train(DATA, tmp_path / "first", config).student.reranker
    settings = config.model_dump(exclude={"prompt"}) | {"base": str(tmp_path / "first")}
    second = train(DATA, tmp_path / "second", TrainConfig.model_validate(settings)).student.reranker
    assert second.prompt.hash == first.prompt.hash
    assert second.prompt.config == SHORT
    assert second.weights_hash != first.weights_hash
    assert Reranker.from_pretrained(tmp_path / "second", dtype="float32").fingerprint == second.fingerprint
    with pytest.raises(InputError, match="brings the prompt that it was trained with"):
        train(DATA, tmp_path / "third", config.model_copy(update={"base": str(tmp_path / "first")}))


def files(folder: Path) -> dict[str, bytes]:
    """Every tensor file of the model, byte for byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def reports(result: TrainResult) -> list[dict[str, Any]]:
    timed = ("seconds", "teacher_pairs_computed")
    return [
        {key: value for key, value in report.items() if key not in timed}
        for report in (result.teacher_report, result.student_report)
    ]


def with_lora(config: TrainConfig, lora: LoraConfig | None) -> TrainConfig:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"lora": lora})})


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_model_comes_out_that_loads_as_both(lora: LoraConfig | None, config: TrainConfig, tmp_path: Path) -> None:
    result = train(DATA, tmp_path / "model", with_lora(config, lora))
    student = Retriever.from_pretrained(tmp_path / "model", dtype="float32")
    teacher = Reranker.from_pretrained(tmp_path / "model", dtype="float32")
    assert np.array_equal(student.encode_query(NEEDS), result.student.encode_query(NEEDS))
    assert np.array_equal(student.encode_document(TOOLS), result.student.encode_document(TOOLS))
    assert np.array_equal(teacher.score_pairs(PAIRS), result.student.reranker.score_pairs(PAIRS))
    assert student.fingerprint == result.student.fingerprint
    assert result.teacher_report["steps"] == 6
    assert result.student_report["epochs"] == 4
    left = {p.name for p in (tmp_path / "model" / "runs").iterdir()}
    assert left <= {"run.json", "lock"}


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize(
    "stops",
    [[("teacher", 2)], [("student", 1)], [("student", 3)], [("teacher", 1), ("teacher", 4), ("student", 2)]],
    ids=str,
)
def test_stops_change_no_bit(
    stops: list[tuple[str, int]],
    lora: LoraConfig | None,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = with_lora(config, lora)
    whole = train(DATA, tmp_path / "whole", config)
    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "another-cache"))
    for task, count in stops:
        with pytest.raises(KeyboardInterrupt):
            train(DATA, tmp_path / "stopped", config, progress=StopAt(task, count))
    stopped = train(DATA, tmp_path / "stopped", config)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert stopped.student.fingerprint == whole.student.fingerprint
    assert reports(stopped) == reports(whole)


def test_a_finished_run_is_loaded(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(DATA, tmp_path / "model", config)
    before = files(tmp_path / "model")
    monkeypatch.setattr(TeacherTrainer, "run", lambda *_: pytest.fail("stage I again"))
    monkeypatch.setattr(PredictorLoop, "run", lambda *_: pytest.fail("stage III again"))
    again = train(DATA, tmp_path / "model", config)
    assert files(tmp_path / "model") == before
    assert again.student.fingerprint == first.student.fingerprint
    assert reports(again) == reports(first)


def test_stage_one_is_not_repeated_for_stage_three(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(DATA, tmp_path / "model", config, progress=StopAt("student", 1))
    monkeypatch.setattr(TeacherTrainer, "run", lambda *_: pytest.fail("stage I again"))
    train(DATA, tmp_path / "model", config)


@pytest.mark.parametrize("when", ["stopped", "finished"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"teacher": TeacherConfig()}, "teacher."),
        ({"prompt": SHORT.model_copy(update={"true": "yes", "false": "no"})}, "prompt."),
    ],
)
def test_other_settings_are_refused_by_name(
    when: str, change: dict[str, Any], named: str, config: TrainConfig, tmp_path: Path
) -> None:
    if when == "finished":
        train(DATA, tmp_path / "model", config)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(DATA, tmp_path / "model", config, progress=StopAt("teacher", 2))
    before = files(tmp_path / "model")
    with pytest.raises(InputError, match="other settings") as caught:
        train(DATA, tmp_path / "model", config.model_copy(update=change))
    assert named in caught.value.message
    assert files(tmp_path / "model") == before


def test_other_data_or_another_budget_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(DATA, tmp_path / "model", config, progress=StopAt("teacher", 2))
    with pytest.raises(InputError, match="data was"):
        train(toy_dataset(dev=False), tmp_path / "model", config)
    with pytest.raises(InputError, match="budget"):
        train(DATA, tmp_path / "model", config, budget=Budget(tokens=99))


def test_one_process_at_a_time(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "model" / "runs").mkdir(parents=True)
    with FileLock(tmp_path / "model" / "runs" / "lock", thread_local=False):
        with pytest.raises(InputError, match="another process is training"):
            train(DATA, tmp_path / "model", config)


def test_a_folder_of_something_else_is_left_alone(config: TrainConfig, tmp_path: Path) -> None:
    """Found out before an hour of training, not after it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        train(DATA, tmp_path / "model", config)
    assert [p.name for p in (tmp_path / "model").iterdir() if p.name != "runs"] == ["thesis.txt"]
    assert not (tmp_path / "model" / "runs" / "teacher").exists()

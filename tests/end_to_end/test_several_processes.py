"""Two real processes, started by accelerate's launcher, take the steps of stage I that one process takes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from rabtriever import Reranker
from rabtriever.errors import InputError
from rabtriever.training.config import LoraConfig, TeacherConfig, TrainConfig
from rabtriever.training.pipeline import train
from rabtriever.training.processes import Processes
from toy_data import SHORT, toy_dataset
from trainings import Training

RECIPE = Path(__file__).parents[2] / "experiments" / "qwen2.5-7b.yaml"
ADAPTER = Path("backbone") / "adapter_model.safetensors"


TWO = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2")


def start(data: Path, model: Path, settings: Path, *more: str, launcher: tuple[str, ...] = TWO) -> Training:
    if launcher is TWO:  # older releases of torch wait for ever at port 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            launcher = (*TWO, f"--main_process_port={free.getsockname()[1]}")
    return Training(data, model, settings, model.with_name("cache"), *more, "--json", launcher=launcher)


def kill(training: Training) -> None:
    """The launcher and its workers, which are in sessions of their own."""
    workers = psutil.Process(training.process.pid).children(recursive=True)
    assert len(workers) >= 2
    for process in (training.process, *workers):
        process.kill()
    training.process.communicate(timeout=600)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    toy_dataset().save(tmp_path / "toy")
    return tmp_path / "toy"


def assert_close(found: Path, expected: Path) -> None:
    """Trained adapters, up to the order in which gradients are added; and they differ from where they began."""
    a, b = load_file(found), load_file(expected)
    assert a.keys() == b.keys()
    for name, tensor in b.items():
        torch.testing.assert_close(a[name], tensor, rtol=1e-3, atol=1e-5)
        assert tensor.abs().max() > 1e-5, name


def test_the_recipe_at_the_papers_size(tiny_folder: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    """Its own file of settings, with a tiny model of its family in the place of the 7B one."""
    settings = ["--base", str(tiny_folder("qwen2")), "--set", "dtype=float32", "--set", "distill.epochs=2"]
    code, stdout, stderr = start(data, tmp_path / "two", RECIPE, *settings).end()
    assert code == 0, stderr
    two = json.loads(stdout)  # one object: the second process says nothing
    code, stdout, stderr = start(data, tmp_path / "one", RECIPE, *settings, launcher=()).end()
    assert code == 0, stderr
    one = json.loads(stdout)
    assert two["teacher"]["config"] == TeacherConfig(**yaml.safe_load(RECIPE.read_text())["teacher"]).model_dump()
    for key in ("steps", "pairs", "tokens", "best_step"):
        assert two["teacher"][key] == one["teacher"][key]
    assert two["teacher"]["final_loss"] == pytest.approx(one["teacher"]["final_loss"], abs=1e-5)
    assert_close(tmp_path / "two" / ADAPTER, tmp_path / "one" / ADAPTER)


def test_killed_and_resumed_with_mined_documents(
    tiny_folder: Callable[..., Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mined by the model of the moment, read apart as well, steps of fewer queries than processes at an epoch's end."""
    config = TrainConfig(
        base=str(tiny_folder("llama")),
        dtype="float32",
        prompt=SHORT,
        teacher=TeacherConfig(
            lora=LoraConfig(rank=4),
            freeze_layers=1,
            candidates="mined:2",
            queries_per_step=23,  # of 24: the second step of an epoch has one query, and nothing for the second process
            epochs=20,
            evaluations=10,
            patience=99,
            dev_queries=5,
            apart_weight=0.5,
            apart_queries=2,
        ),
    )
    settings = tmp_path / "settings.yaml"
    settings.write_text(config.model_dump_json())  # JSON is YAML
    more = ("--set", "distill.epochs=2")
    first = start(data, tmp_path / "two", settings, *more)
    first.wait_for("teacher-state/checkpoint-8/trainer_state.json")
    kill(first)
    code, stdout, stderr = start(data, tmp_path / "two", settings, *more).end()
    assert code == 0, stderr
    assert "goes on from step" in stderr
    two = json.loads(stdout)["teacher"]

    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "another-cache"))
    shorter = config.model_copy(update={"distill": config.distill.model_copy(update={"epochs": 2})})
    one = train(toy_dataset(name="toy"), tmp_path / "one", shorter).teacher_report
    assert two["steps"] == one["steps"] == 40
    assert two["dev_mrr_by_step"] == [[step, pytest.approx(mrr)] for step, mrr in one["dev_mrr_by_step"]]
    assert_close(tmp_path / "two" / ADAPTER, tmp_path / "one" / ADAPTER)


def test_a_folder_is_needed(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "together", classmethod(lambda cls: Processes(rank=0, count=2)))
    teacher: Any = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    with pytest.raises(InputError, match="2 processes train together, but there is no folder"):
        teacher.fit(toy_dataset())

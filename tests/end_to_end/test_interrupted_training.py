"""A real process, stopped by Ctrl-C and by kill -9 at moments of its own: the model in the end is the same."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import Retriever
from rabtriever.training.config import DistillConfig, LoraConfig, TeacherConfig, TrainConfig
from rabtriever.training.pipeline import train
from toy_data import SHORT, toy_dataset
from trainings import Training


@pytest.fixture
def config(tiny_folder: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        base=str(tiny_folder("llama")),
        dtype="float32",
        prompt=SHORT,
        teacher=TeacherConfig(  # 60 steps, dev MRR after 30 and 60
            lora=LoraConfig(rank=4, dropout=0.1),
            freeze_layers=1,
            candidates="random:3",
            queries_per_step=4,
            epochs=10,
            patience=9,
        ),
        distill=DistillConfig(candidates="on-policy:2", epochs=80),
    )


def test_ctrl_c_and_kill_change_no_bit(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = tmp_path / "data", tmp_path / "settings.yaml"
    toy_dataset().save(data)
    settings.write_text(config.model_dump_json())  # JSON is YAML

    def command() -> Training:
        return Training(data, tmp_path / "model", settings, tmp_path / "cache")

    first = command()
    first.wait_for("teacher-state/plan-1.json")
    code, _, said = first.end(signal.SIGINT)
    assert code == 130
    assert "what was trained so far is kept" in said

    second = command()
    second.wait_for("teacher-state/checkpoint-3*")
    code, _, said = second.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "goes on from step" in said

    third = command()
    third.wait_for("student/state.safetensors")
    code, _, said = third.end(signal.SIGINT)
    assert code == 130
    assert "goes on from step" in said

    code, _, said = command().end()
    assert code == 0, said
    assert "teacher: trained already" in said
    assert "student: goes on from epoch" in said

    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "another-cache"))
    whole = train(toy_dataset(name="data"), tmp_path / "whole", config)
    assert Retriever.from_pretrained(tmp_path / "model", dtype="float32").fingerprint == whole.student.fingerprint
    for name in ("predictor.safetensors", "backbone/adapter_model.safetensors"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

"""A training's state in one file: whole, exact, and refused where it does not belong."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from rabtriever.errors import InputError, MismatchError
from rabtriever.training import checkpoint
from rabtriever.training.checkpoint import load_random, load_state, load_weights, save_state


class Run:
    """A small training with dropout whose every number depends on all that came before."""

    def __init__(self, optimizer: Any = AdamW, width: int = 4) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.3), nn.Linear(width, 1))
        self.optimizer = optimizer(self.model.parameters(), lr=0.1)
        self.scheduler = LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.parameters = dict(self.model.named_parameters())

    def steps(self, count: int) -> None:
        for _ in range(count):
            noise = random.random() + np.random.rand()
            loss = (self.model(torch.randn(5, 3)) - noise).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()

    def save(self, path: Path, extra: dict[str, Any] | None = None) -> None:
        save_state(path, self.parameters, self.optimizer, self.scheduler, extra)

    def load(self, path: Path) -> dict[str, Any]:
        return load_state(path, self.parameters, self.optimizer, self.scheduler)

    def numbers(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


@pytest.mark.parametrize("optimizer", [AdamW, SGD])
def test_steps_stop_resume_steps_are_twice_the_steps(optimizer: Any, tmp_path: Path) -> None:
    whole = Run(optimizer)
    random.seed(1), np.random.seed(1)
    whole.steps(5)
    whole.save(tmp_path / "state", {"history": [0.5, None, "ß"]})
    whole.steps(5)

    random.seed(99), np.random.seed(99)
    resumed = Run(optimizer)
    torch.manual_seed(99)
    extra = resumed.load(tmp_path / "state")
    resumed.steps(5)
    assert extra == {"history": [0.5, None, "ß"]}
    assert torch.equal(resumed.numbers(), whole.numbers())
    assert resumed.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_a_gpus_random_numbers_are_stored_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[torch.Tensor] = []
    run = Run()
    run.save(tmp_path / "without")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.arange(5, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", put_back.append)
    run.save(tmp_path / "with")
    load_random(tmp_path / "without")
    assert put_back == []
    load_random(tmp_path / "with")
    assert put_back[0].tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    load_random(tmp_path / "with")  # written on a GPU, gone on with without one
    assert len(put_back) == 1


def test_a_gaussian_kept_back_by_numpy_and_python_survives(tmp_path: Path) -> None:
    """Both draw normal numbers in pairs and keep the second for later: it is part of the state."""
    run = Run()
    np.random.randn(), random.gauss(0, 1)
    run.save(tmp_path / "state")
    expected = (np.random.randn(), random.gauss(0, 1), np.random.rand(), random.random(), torch.rand(1).item())
    np.random.seed(5), random.seed(5), torch.manual_seed(5)
    load_random(tmp_path / "state")
    assert (np.random.randn(), random.gauss(0, 1), np.random.rand(), random.random(), torch.rand(1).item()) == expected


def test_weights_alone(tmp_path: Path) -> None:
    run = Run()
    run.save(tmp_path / "state")
    before = run.numbers()
    run.steps(2)
    random_state = torch.random.get_rng_state()
    load_weights(tmp_path / "state", run.parameters)
    assert torch.equal(run.numbers(), before)
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("other", ["shape", "name"])
def test_the_state_of_other_parameters_is_refused(other: str, tmp_path: Path) -> None:
    Run().save(tmp_path / "state")
    run = Run(width=5 if other == "shape" else 4)
    if other == "name":
        run.parameters = {f"x.{name}": p for name, p in run.parameters.items()}
    before = run.numbers()
    with pytest.raises(MismatchError, match="state of other parameters"):
        run.load(tmp_path / "state")
    assert torch.equal(run.numbers(), before)


@pytest.mark.parametrize("damage", ["cut short", "missing", "other content"])
def test_a_damaged_state_is_named(damage: str, tmp_path: Path) -> None:
    path, run = tmp_path / "state", Run()
    run.save(path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-7] if damage == "cut short" else b"{}" * 50)
    with pytest.raises(InputError, match="not a whole training state") as caught:
        run.load(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: (os error 28)")]
)
def test_a_full_disk_leaves_the_state_before(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, path = Run(), tmp_path / "state"
    run.save(path, {"step": 1})
    before = path.read_bytes()

    def half(tensors: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(InputError, match="disk is full"):
        run.save(path, {"step": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state"]

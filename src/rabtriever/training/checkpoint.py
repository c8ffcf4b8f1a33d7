"""The state of an unfinished training in one safetensors file: weights, optimiser, schedule and random numbers.

``k`` steps, a stop, a resume and ``k`` steps give the same bits as ``2k`` steps. No pickle is written or read.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rabtriever.errors import InputError, MismatchError
from rabtriever.files import writing

__all__ = ["load_random", "load_state", "load_weights", "save_state"]


def save_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    scheduler: LRScheduler,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a training's state, atomically.

    Args:
        path: The file to write or replace.
        parameters: The trained parameters by name.
        optimizer: Its state tensors are stored; they must be tensors, as those of Adam and SGD are.
        scheduler: Its state must be JSON.
        extra: What else must survive, as JSON.

    Raises:
        InputError: If the disk is full; a state that was there before stays.
    """
    tensors: dict[str, Tensor] = {f"weight.{name}": p.detach().contiguous() for name, p in parameters.items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        tensors.update({f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in values.items()})
    tensors["random.torch"] = torch.random.get_rng_state()
    if torch.cuda.is_available():  # dropout on a GPU draws from that GPU's own generator
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # Trainer seeds the legacy generator
    tensors["random.numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    version, internal, gauss_next = random.getstate()
    meta = {
        "groups": state["param_groups"],
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if not k.startswith("_") or k == "_last_lr"},
        "numpy": [kind, int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
        "extra": dict(extra or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path, temporary):
            save_file(tensors, temporary, metadata={"state": json.dumps(meta, default=_plain)})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, scheduler: LRScheduler
) -> dict[str, Any]:
    """Put a stored state back in place and return the ``extra`` stored with it.

    Raises:
        InputError: If the file is damaged.
        MismatchError: If it belongs to other parameters.
    """
    tensors, meta = _read(path)
    _put_weights(path, tensors, parameters)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": meta["groups"]})
    scheduler.load_state_dict(meta["scheduler"])
    _put_random(tensors, meta)
    extra: dict[str, Any] = meta["extra"]
    return extra


def load_weights(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put back the trained parameters alone."""
    tensors, _ = _read(path)
    _put_weights(path, tensors, parameters)


def load_random(path: Path) -> None:
    """Put back the states of the random number generators alone."""
    _put_random(*_read(path))


def _put_random(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    torch.random.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    kind, position, has_gauss, gauss = meta["numpy"]
    keys = tensors["random.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, gauss))
    version, internal, gauss_next = meta["python"]
    random.setstate((version, tuple(internal), gauss_next))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise InputError(
            f"{path} is not a whole training state: {error}", hint="delete its folder to go on from the one before"
        ) from error


def _put_weights(path: Path, tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    stored = {name.removeprefix("weight."): tuple(x.shape) for name, x in tensors.items() if name.startswith("weight.")}
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if stored != wanted:
        odd = min(name for name, _ in stored.items() ^ wanted.items())
        raise MismatchError(
            f"{path} holds the state of other parameters, for example {odd!r}",
            hint="resume with the configuration that the training began with, or write to another folder",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")

"""A base model is found by its embedded name, its folder or its hub id; anything else is explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from local_server import Handler, running
from rabtriever.base_models import base_name, resolve_base
from rabtriever.errors import DataError, InputError

HUB_FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": save({"a": np.zeros(3)}),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": b"the weights once more",
    "onnx/config.json": b"{}",
}


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros(3)}, folder / "model.safetensors")
    return folder


def test_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "org" / "name")
    assert resolve_base(folder) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve_base("org/name") == Path("org/name")  # a folder goes before the hub
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_base("~/org/name") == folder


def test_the_recorded_name_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    recorded = base_name("org/name")
    monkeypatch.chdir("/")
    assert resolve_base(recorded) == tmp_path / "org" / "name"
    assert base_name("org/name") == "org/name"  # no such folder here: a hub id
    assert base_name("smollm2-135m") == "smollm2-135m"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"config\.json does not exist"),
        ("model.safetensors", r"holds no model\.safetensors"),
        ("tokenizer.json", r"holds no tokenizer"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, missing: str, message: str) -> None:
    (model(tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=message):
        resolve_base(tmp_path)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (model(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only as pytorch_model\.bin, a pickle") as caught:
        resolve_base(tmp_path)
    assert "save_pretrained(NEW_FOLDER)" in caught.value.hint


def test_a_missing_part_of_sharded_weights_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model(tmp_path) / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names model-2\.safetensors, not found"):
        resolve_base(tmp_path)


@pytest.mark.parametrize(("content", "error"), [("{}", InputError), ("[]", InputError), ("{", DataError)])
def test_a_config_of_something_else(tmp_path: Path, content: str, error: type[Exception]) -> None:
    (model(tmp_path) / "config.json").write_text(content)
    with pytest.raises(error, match=r"config\.json"):
        resolve_base(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm-135m", r"'smollm-135m' is neither .*\(smollm2-135m\).*did you mean smollm2-135m\?"),
        ("SmolLM2-135M", r"did you mean smollm2-135m\?"),
        ("qwen", r"'qwen' is neither an embedded base model .* nor a folder .* nor a hub id like org/name; check"),
        ("", "'' is neither"),
        ("a/b/c", "'a/b/c' is neither"),
        ("../models", r"'\.\./models' is neither"),
        ("/models/moved", "folder /models/moved does not exist"),
    ],
)
def test_other_names_are_explained(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(InputError, match=message):
        resolve_base(name)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InputError, match=r"model\.gguf is a file"):
        resolve_base(tmp_path / "model.gguf")


class Hub(Handler):
    """As much of a model hub as fetching takes: it has the model ``org/name``, and ``org/gated`` behind terms."""

    fetched: ClassVar[list[str]] = []
    sha = "1" * 40

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        files = [
            {"type": "file", "path": n, "size": len(d), "oid": f"{i:040}"} for i, (n, d) in enumerate(HUB_FILES.items())
        ]
        siblings = [{"rfilename": name} for name in HUB_FILES]
        if path.startswith("/api/models/org/name/revision/"):
            self.send(json.dumps({"id": "org/name", "sha": self.sha, "siblings": siblings}).encode(), body)
        elif path.startswith("/api/models/org/name/tree/"):
            self.send(json.dumps(files).encode(), body)
        elif path.startswith(f"/org/name/resolve/{self.sha}/"):
            name = path.split(self.sha + "/")[1]
            self.fetched.append(name)
            self.send(HUB_FILES[name], body, {"ETag": f'"{name}"', "X-Repo-Commit": self.sha})
        else:
            gated = "org/gated" in path
            self.send(b"", body, {"X-Error-Code": "GatedRepo" if gated else "RepoNotFound"}, 403 if gated else 404)


def resolve_with(endpoint: str, name: str, cache: Path, offline: bool = False) -> tuple[str, str]:
    """``resolve_base`` in a process of its own: the hub's client reads its settings once, when imported."""
    code = (
        "import sys; from rabtriever.base_models import resolve_base; from rabtriever.errors import InputError\n"
        "try: print(resolve_base(sys.argv[1]))\n"
        "except InputError as error: print(error.code, error)"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": str(int(offline)), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code, name], env={**os.environ, **settings}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip(), done.stderr


def test_a_hub_id(tmp_path: Path) -> None:
    Hub.fetched.clear()
    with running(Hub) as endpoint:
        folder, progress = resolve_with(endpoint, "org/name", tmp_path)
        assert sorted(entry.name for entry in Path(folder).iterdir()) == [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ]
        assert set(Hub.fetched) == {"config.json", "model.safetensors", "tokenizer.json"}  # no pickle, nothing twice
        assert progress.startswith("org/name: looking it up in the model hub")
    assert resolve_with(endpoint, "org/name", tmp_path, offline=True)[0] == folder


@pytest.mark.parametrize(
    ("name", "offline", "message"),
    [
        ("org/none", False, "there is no folder org/none here, and the hub has no model org/none; check the spelling"),
        ("org/gated", False, "is open only to those who accepted its terms"),
        ("org/name", True, "could not be fetched from the hub"),
    ],
)
def test_a_hub_id_that_cannot_be_had(tmp_path: Path, name: str, offline: bool, message: str) -> None:
    with running(Hub) as endpoint:
        assert message in resolve_with(endpoint, name, tmp_path, offline)[0]


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    with running(Hub) as endpoint:
        pass  # gone again
    answer = resolve_with(endpoint, "org/name", tmp_path)[0]
    assert answer.startswith(
        "fetch_failed there is no folder org/name here, and the model org/name could not be fetched"
    )
    assert "smollm2-135m" in answer

"""A saved model's config.json is checked when read, and mismatches are refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import rabtriever
from rabtriever.artifacts import (
    FORMAT_VERSION,
    ArtifactConfig,
    BaseIdentity,
    check_finite,
    check_same,
    fingerprint_folder,
    installed_versions,
    is_artifact,
)
from rabtriever.errors import DataError, InputError, MismatchError

BASE = BaseIdentity(name="smollm2-135m", fingerprint="ab" * 32, architecture="LlamaForCausalLM", hidden_size=576)


def config(**changes: Any) -> ArtifactConfig:
    values: dict[str, Any] = {
        "kind": "retriever",
        "base": BASE,
        "weights_hash": "12" * 32,
        "tokenizer_fingerprint": "cd" * 32,
        "prompt": {"document": "Document: {text}\n"},
        "prompt_hash": "ef" * 32,
        "true_id": 68,
        "false_id": 54,
        "adapter": True,
        "predictor": {"layers": 2},
    }
    return ArtifactConfig(**{**values, **changes})


@given(st.text(), st.integers(0, 2**31), st.dictionaries(st.text(), st.integers() | st.text(), max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, token: int, training: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    base = BASE.model_copy(update={"name": name})
    written = config(base=base, true_id=token, training=training)
    written.write(folder)
    assert ArtifactConfig.read(folder) == written
    assert is_artifact(folder)


def test_the_versions_are_recorded() -> None:
    assert config().library_version == rabtriever.__version__
    assert config().versions == installed_versions()
    assert torch.__version__.startswith(installed_versions()["torch"])  # perhaps without the build's label


def edited(folder: Path, **changes: Any) -> Path:
    config().write(folder)
    content = json.loads((folder / "config.json").read_text())
    content.update(changes)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format_version": FORMAT_VERSION + 1, "library_version": "3.1"},
            r"format_version is 3, and .* reads up to 2.*3\.1",
        ),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"kind": "ranker"}, "kind is 'ranker', expected reranker or retriever"),
        ({"kind": "absent"}, "kind is None"),
        ({"true_id": "T"}, "true_id is wrong: Input should be a valid integer"),
        ({"base": {"name": "x"}}, r"base\.fingerprint is wrong: Field required"),
        ({"extra": 1}, "extra is wrong: Extra inputs are not permitted"),
        ({"format_version": "absent"}, "is not a model that Rabtriever saved"),
    ],
)
def test_a_wrong_config_names_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"config\.json.* " + message):
        ArtifactConfig.read(edited(tmp_path, **changes))


def test_malformed_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n"kind": }')
    with pytest.raises(DataError, match=r"config\.json, line 2"):
        ArtifactConfig.read(tmp_path)
    assert not is_artifact(tmp_path)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model .*nowhere does not exist"):
        ArtifactConfig.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no config\.json, so it is not a model"):
        ArtifactConfig.read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        ArtifactConfig.read(tmp_path / "file")


def test_a_save_cut_between_two_renames_says_where_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "model.old-1f").mkdir()
    with pytest.raises(InputError, match=r"interrupted save left model\.old-1f.*rename .*model\.old-1f to model"):
        ArtifactConfig.read(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "architecture", "width"),
    [
        ({"architectures": ["LlamaForCausalLM"], "hidden_size": 16}, "LlamaForCausalLM", 16),
        ({"architectures": ["GPT2LMHeadModel"], "n_embd": 32}, "GPT2LMHeadModel", 32),
        ({"architectures": ["Gemma3ForX"], "text_config": {"hidden_size": 64}}, "Gemma3ForX", 64),
    ],
)
def test_a_base_model_is_identified(tmp_path: Path, content: dict[str, Any], architecture: str, width: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file({"a": np.zeros(3)}, tmp_path / "model.safetensors")
    found = BaseIdentity.of_folder(tmp_path, "mine")
    assert found == BaseIdentity(
        name="mine", fingerprint=fingerprint_folder(tmp_path), architecture=architecture, hidden_size=width
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "does not say the model's architectures"),
        ('{"architectures": ["X"]}', "does not say the model's hidden_size"),
        ("[]", "expected a JSON object"),
    ],
)
def test_a_base_model_that_says_too_little(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=message):
        BaseIdentity.of_folder(tmp_path, "mine")


def test_a_mismatch_says_which_part() -> None:
    check_same("prompt", "a" * 64, "a" * 64, "models/household")
    with pytest.raises(MismatchError) as caught:
        check_same("base model", "b" * 64, "a" * 64, "models/household")
    assert caught.value.message == (
        "models/household was made with another base model: it expects aaaaaaaaaaaa…, but found bbbbbbbbbbbb…"
    )
    with pytest.raises(MismatchError, match="expects 576, but found 64"):
        check_same("width", "64", "576", "models/household")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_named(bad: float, dtype: torch.dtype) -> None:
    good = torch.ones(3, 4, dtype=dtype)
    broken = good.clone()
    broken[1, 2] = bad
    fine = [("a", good), ("ids", torch.arange(3)), ("huge", torch.full((9,), torch.finfo(dtype).max, dtype=dtype))]
    check_finite(fine, "models/x")
    with pytest.raises(InputError, match="models/x: the weights layer hold NaN or infinite") as caught:
        check_finite([*fine, ("layer", broken.T)], "models/x")
    assert caught.value.code == "not_finite"


def test_every_chunk_of_a_large_tensor_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabtriever.artifacts._CHUNK", 4)
    for place in range(10):
        tensor = torch.zeros(10)
        tensor[place] = float("nan")
        with pytest.raises(InputError):
            check_finite([("a", tensor)], "x")

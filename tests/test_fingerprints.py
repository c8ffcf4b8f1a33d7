"""Fingerprints tell models apart by what they compute, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rabtriever.errors import DataError, InputError
from rabtriever.fingerprints import fingerprint_folder, tokenizer_fingerprint, weight_files

CONFIG = {"model_type": "llama", "hidden_size": 8, "text_config": {"layers": 2, "dtype": "float32"}}
WEIGHTS = {
    "embed": np.arange(64_000, dtype=np.float32).reshape(1000, 64),
    "layer.0": np.full((3, 5), 0.5, dtype=np.float32),
    "layer.1": np.full((3, 5), 0.25, dtype=np.float32),
    "scale": np.array(2.0, dtype=np.float32),
}


def model(folder: Path, config: object = None, weights: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    save_file(WEIGHTS if weights is None else weights, folder / "model.safetensors")
    return folder


def sharded(folder: Path, parts: list[list[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    where = {}
    for number, names in enumerate(parts):
        save_file({name: WEIGHTS[name] for name in names}, folder / f"model-{number}.safetensors")
        where.update(dict.fromkeys(names, f"model-{number}.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    one = model(tmp_path / "one")
    volatile = {"transformers_version": "9", "_name_or_path": "x", "dtype": "float16", "use_cache": False}
    other = model(
        tmp_path / "other", {**volatile, **CONFIG, "text_config": {"layers": 2, "torch_dtype": "bfloat16", "_x": 1}}
    )
    assert fingerprint_folder(one) == fingerprint_folder(other)
    assert len(fingerprint_folder(one)) == 64


@given(st.permutations(list(WEIGHTS)), st.integers(1, 3))
def test_the_split_into_files_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], first: int
) -> None:
    folder = tmp_path_factory.mktemp("model")
    whole, parts = model(folder / "whole"), sharded(folder / "parts", [order[:first], order[first:]])
    assert fingerprint_folder(whole) == fingerprint_folder(parts)


@given(st.sampled_from(sorted(WEIGHTS)), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_change_at_start_middle_or_end_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: float
) -> None:
    folder = tmp_path_factory.mktemp("model")
    changed = {key: value.copy() for key, value in WEIGHTS.items()}
    flat = changed[name].reshape(-1)
    flat[round(place * (flat.size - 1))] += 1
    one, other = model(folder / "one"), model(folder / "other", weights=changed)
    assert fingerprint_folder(one) != fingerprint_folder(other)


@pytest.mark.parametrize(
    "change",
    [
        {"layer.0": WEIGHTS["layer.1"], "layer.1": WEIGHTS["layer.0"]},  # the same bytes under other names
        {"layer.0": WEIGHTS["layer.0"].reshape(5, 3)},
        {"scale": WEIGHTS["scale"].view(np.int32)},
        {"one more": WEIGHTS["scale"]},
    ],
    ids=["names", "shape", "type", "tensor added"],
)
def test_names_shapes_and_types_count(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other", weights={**WEIGHTS, **change})
    assert fingerprint_folder(one) != fingerprint_folder(other)


def test_the_configuration_counts(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other", {**CONFIG, "rope_theta": 1e5})
    assert fingerprint_folder(one) != fingerprint_folder(other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
    ],
    ids=["empty", "cut", "git-lfs pointer", "length", "header"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    file = model(tmp_path) / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"model\.safetensors \(\d+ bytes\) is not a complete safetensors file"):
        fingerprint_folder(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \*\.safetensors"):
        weight_files(tmp_path)
    sharded(tmp_path, [["embed"], ["scale"]])
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"names model-1\.safetensors, not found"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="names no files"):
        weight_files(tmp_path)


def tokenizer(words: str = "a b c") -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["[PAD]", *words.split()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")


def test_a_tokenizer_is_known_by_what_it_does_not_by_its_use(tmp_path: Path) -> None:
    used = tokenizer()
    before = tokenizer_fingerprint(used)
    used(["a b", "c"], padding=True, truncation=True, max_length=1)
    assert tokenizer_fingerprint(used) == before == tokenizer_fingerprint(tokenizer())
    used.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(PreTrainedTokenizerFast.from_pretrained(tmp_path)) == before


def test_vocabulary_pipeline_and_chat_template_count() -> None:
    chat, split = tokenizer(), tokenizer()
    chat.chat_template = "{{ messages }}"
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.Digits()
    variants = [tokenizer(), tokenizer("a c b"), chat, split]
    assert len({tokenizer_fingerprint(variant) for variant in variants}) == len(variants)

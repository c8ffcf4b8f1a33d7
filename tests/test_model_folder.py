"""What was saved is what is loaded, bit for bit; what does not belong together is refused in words that say which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rabtriever import Reranker, Retriever
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import PromptConfig
from rabtriever.training.config import LoraConfig, TeacherConfig
from tiny_models import tiny_model_folder, tiny_tokenizer
from toy_data import NEEDS, SHORT, TOOLS, toy_dataset

PAIRS = [(need, tool) for need in NEEDS for tool in TOOLS]
LORA = TeacherConfig(lora=LoraConfig(rank=4), freeze_layers=1, epochs=0.5, learning_rate=1e-2, evaluations=0)
FULL = LORA.model_copy(update={"lora": None})

Folder = Callable[..., Path]


@pytest.fixture
def base(tiny_folder: Folder, tmp_path: Path) -> Path:
    """A base model of the test's own, to be changed at will."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "base"))


def untrained(base: Path, dtype: Any = "float32") -> Reranker:
    return Reranker.from_pretrained(base, prompt=SHORT, dtype=dtype)


def trained(base: Path, config: TeacherConfig = LORA, dtype: Any = "float32", seed: int = 0) -> Reranker:
    return untrained(base, dtype).fit(toy_dataset(), config, seed=seed)


def student(teacher: Reranker, config: PredictorConfig | None = None, seed: int = 0) -> Retriever:
    torch.manual_seed(seed)
    predictor = Predictor(teacher.backbone.hidden_size, config or PredictorConfig(zero_init=False, rank=8))
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    return Retriever(teacher, predictor)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def first_nan(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).view(-1)[0] = float("nan")


# --- saved = loaded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["untrained", "full", "lora"])
def test_a_reranker_survives_bit_for_bit(kind: str, dtype: str, base: Path, tmp_path: Path) -> None:
    config = {"untrained": None, "full": FULL, "lora": LORA}[kind]
    teacher = untrained(base, dtype) if config is None else trained(base, config, dtype)
    teacher.save_pretrained(tmp_path / "saved")
    loaded = Reranker.from_pretrained(tmp_path / "saved", dtype=dtype)  # type: ignore[arg-type]
    assert np.array_equal(loaded.score_pairs(PAIRS), teacher.score_pairs(PAIRS))
    assert loaded.fingerprint == teacher.fingerprint
    assert loaded.backbone.dtype == teacher.backbone.dtype
    loaded.save_pretrained(tmp_path / "again")
    again = Reranker.from_pretrained(tmp_path / "again", dtype=dtype)  # type: ignore[arg-type]
    assert np.array_equal(again.score_pairs(PAIRS), teacher.score_pairs(PAIRS))
    assert again.fingerprint == teacher.fingerprint


def test_training_changes_scores_and_identity(base: Path) -> None:
    before = untrained(base)
    for config in (LORA, FULL):
        after = trained(base, config)
        assert np.abs(after.score_pairs(PAIRS) - before.score_pairs(PAIRS)).max() > 1e-2
        assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("kind", ["untrained", "full", "lora"])
@pytest.mark.parametrize("variant", [PredictorConfig(zero_init=False), PredictorConfig(zero_init=False, rank=8)])
def test_a_retriever_survives_bit_for_bit(kind: str, variant: PredictorConfig, base: Path, tmp_path: Path) -> None:
    config = {"untrained": None, "full": FULL, "lora": LORA}[kind]
    teacher = untrained(base) if config is None else trained(base, config)
    model = student(teacher, variant)
    model.save_pretrained(tmp_path / "saved")
    loaded = Retriever.from_pretrained(tmp_path / "saved", dtype="float32")
    assert np.array_equal(loaded.encode_query(NEEDS), model.encode_query(NEEDS))
    assert np.array_equal(loaded.encode_document(TOOLS), model.encode_document(TOOLS))
    assert loaded.fingerprint == model.fingerprint
    assert loaded.bias == model.bias
    assert loaded.path == model.path == str(tmp_path / "saved")
    # The same folder is the teacher's, too.
    reranker = Reranker.from_pretrained(tmp_path / "saved", dtype="float32")
    assert np.array_equal(reranker.score_pairs(PAIRS), teacher.score_pairs(PAIRS))


@pytest.mark.parametrize("second", [LORA, FULL])
@pytest.mark.parametrize("first", [LORA, FULL])
def test_training_goes_on_from_a_trained_teacher(
    first: TeacherConfig, second: TeacherConfig, base: Path, tmp_path: Path
) -> None:
    """An adapter is a difference to the base model: on top of other weights it must not be saved alone."""
    trained(base, first).save_pretrained(tmp_path / "first")
    teacher = Reranker.from_pretrained(tmp_path / "first", dtype="float32").fit(toy_dataset(), second, seed=1)
    teacher.save_pretrained(tmp_path / "second")
    loaded = Reranker.from_pretrained(tmp_path / "second", dtype="float32")
    assert np.array_equal(loaded.score_pairs(PAIRS), teacher.score_pairs(PAIRS))
    assert loaded.fingerprint == teacher.fingerprint


def test_fitting_twice_in_memory_survives(base: Path, tmp_path: Path) -> None:
    teacher = trained(base, LORA).fit(toy_dataset(), LORA, seed=1)
    teacher.save_pretrained(tmp_path / "saved")
    loaded = Reranker.from_pretrained(tmp_path / "saved", dtype="float32")
    assert np.array_equal(loaded.score_pairs(PAIRS), teacher.score_pairs(PAIRS))


def test_a_base_tokenizer_without_chat_survives(tiny_folder: Folder, tmp_path: Path) -> None:
    teacher = untrained(tiny_folder("gpt2", chat=False, bos=True))
    teacher.save_pretrained(tmp_path / "saved")
    loaded = Reranker.from_pretrained(tmp_path / "saved", dtype="float32")
    assert np.array_equal(loaded.score_pairs(PAIRS), teacher.score_pairs(PAIRS))


def test_a_tokenizer_whose_markers_were_ordinary_survives(base: Path, tmp_path: Path) -> None:
    """Reading a prompt makes the chat's markers special tokens: the saved tokenizer must be the same again."""

    def make_ordinary(tokenizer: Any) -> None:
        for token in tokenizer["added_tokens"]:
            token["special"] = "im_" not in token["content"]

    edit_json(base / "tokenizer.json", make_ordinary)
    teacher = untrained(base)
    teacher.save_pretrained(tmp_path / "saved")
    loaded = Reranker.from_pretrained(tmp_path / "saved", dtype="float32")
    assert loaded.prompt.hash == teacher.prompt.hash
    assert loaded.prompt.query_ids("<|im_end|>") == teacher.prompt.query_ids("<|im_end|>")


@pytest.mark.parametrize("config", [LORA, FULL])
def test_a_folder_holds_no_pickle_and_a_card(config: TeacherConfig, base: Path, tmp_path: Path) -> None:
    student(trained(base, config)).save_pretrained(tmp_path / "household")
    names = {p.name for p in (tmp_path / "household").rglob("*") if p.is_file()}
    assert {Path(name).suffix for name in names} <= {".json", ".safetensors", ".md", ".jinja"}
    assert {"config.json", "predictor.safetensors", "README.md"} <= names
    assert ("adapter_model.safetensors" in names) == (config is LORA)
    assert "# household" in (tmp_path / "household" / "README.md").read_text()


def test_saving_again_keeps_what_a_run_needs(base: Path, tmp_path: Path) -> None:
    model = student(untrained(base))
    (tmp_path / "model" / "runs").mkdir(parents=True)
    (tmp_path / "model" / "runs" / "run.json").write_text("{}")
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "runs" / "run.json").exists()


def test_a_full_disk_leaves_the_former_model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    model = student(untrained(base))
    model.save_pretrained(tmp_path / "model")
    before = model.encode_query(NEEDS)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(model.reranker.backbone.model), "save_pretrained", full)
    with pytest.raises(InputError, match="disk is full"):
        student(untrained(base), PredictorConfig(rank=4)).save_pretrained(tmp_path / "model")
    monkeypatch.undo()
    loaded = Retriever.from_pretrained(tmp_path / "model", dtype="float32")
    assert np.array_equal(loaded.encode_query(NEEDS), before)
    assert [p.name for p in tmp_path.iterdir() if "model" in p.name] == ["model"]


def test_a_reranker_of_unknown_base_is_not_saved(base: Path, tmp_path: Path) -> None:
    known = untrained(base)
    with pytest.raises(InputError, match="built in memory"):
        Reranker(known.backbone, known.prompt).save_pretrained(tmp_path / "saved")


# --- what does not belong together


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    trained(base).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def whole(base: Path, tmp_path: Path) -> Path:
    student(untrained(base)).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def test_an_adapter_on_another_base_model_is_refused(adapter: Path, base: Path) -> None:
    shutil.rmtree(base)
    tiny_model_folder(base, seed=1)
    with pytest.raises(MismatchError, match="another base model"):
        Reranker.from_pretrained(adapter, dtype="float32")


def test_an_adapter_without_its_base_model_is_refused(adapter: Path, base: Path) -> None:
    shutil.rmtree(base)
    with pytest.raises(InputError, match="does not exist") as caught:
        Reranker.from_pretrained(adapter, dtype="float32")
    assert str(base) in caught.value.message


@pytest.mark.parametrize("which", ["adapter", "whole"])
def test_another_tokenizer_is_refused(which: str, request: pytest.FixtureRequest, base: Path) -> None:
    folder: Path = request.getfixturevalue(which)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["juice"])  # user texts with this word would be read otherwise
    tokenizer.save_pretrained(base if which == "adapter" else folder / "backbone")
    with pytest.raises(MismatchError, match="another tokenizer"):
        Reranker.from_pretrained(folder, dtype="float32")


@pytest.mark.parametrize("part", ["backbone", "predictor.safetensors"])
def test_the_weights_of_another_training_are_refused(part: str, whole: Path, base: Path, tmp_path: Path) -> None:
    """A mixture of two models would load and answer nonsense."""
    other = student(trained(base, FULL), seed=1)
    other.save_pretrained(tmp_path / "other")
    (shutil.rmtree if part == "backbone" else Path.unlink)(whole / part)
    (shutil.copytree if part == "backbone" else shutil.copy)(tmp_path / "other" / part, whole / part)
    with pytest.raises(MismatchError, match=f"another {part}"):
        Retriever.from_pretrained(whole, dtype="float32")
    if part != "backbone":
        Reranker.from_pretrained(whole, dtype="float32")  # the teacher needs no predictor


def test_an_adapter_of_another_training_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    trained(base, seed=5).save_pretrained(tmp_path / "other")
    shutil.rmtree(adapter / "backbone")
    shutil.copytree(tmp_path / "other" / "backbone", adapter / "backbone")
    with pytest.raises(MismatchError, match="another backbone"):
        Reranker.from_pretrained(adapter, dtype="float32")


@pytest.mark.parametrize("which", ["adapter", "whole"])
def test_another_prompt_is_refused(which: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(which)
    edit_json(folder / "config.json", lambda config: config["prompt"].update(document="Text: {text}\n"))
    with pytest.raises(MismatchError, match="another prompt"):
        Reranker.from_pretrained(folder, dtype="float32")


@pytest.mark.parametrize(
    "setting", [{"document": "no place"}, {"max_query_tokens": "many"}, {"colour": "blue"}, {"true": "x", "false": "x"}]
)
def test_a_senseless_prompt_is_refused(setting: dict[str, Any], whole: Path) -> None:
    edit_json(whole / "config.json", lambda config: config["prompt"].update(setting))
    with pytest.raises(InputError):
        Reranker.from_pretrained(whole, dtype="float32")


def test_senseless_predictor_settings_are_refused(whole: Path) -> None:
    edit_json(whole / "config.json", lambda config: config["predictor"].update(layers=0))
    with pytest.raises(InputError, match="layers"):
        Retriever.from_pretrained(whole, dtype="float32")


@pytest.mark.parametrize("answers", [{"true": "x", "false": "x"}])
def test_answers_that_coincide_are_refused(answers: dict[str, str], base: Path) -> None:
    with pytest.raises(InputError, match="apart"):
        Reranker.from_pretrained(base, prompt=PromptConfig(**answers), dtype="float32")


def test_a_prompt_beyond_the_positions_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="2048 positions"):
        Reranker.from_pretrained(base, prompt=PromptConfig(max_document_tokens=5000), dtype="float32")


def test_a_trained_model_takes_no_other_prompt(whole: Path) -> None:
    with pytest.raises(InputError, match="brings the prompt"):
        Reranker.from_pretrained(whole, prompt=SHORT)


def test_a_teacher_is_no_retriever(adapter: Path) -> None:
    with pytest.raises(InputError, match="without a predictor") as caught:
        Retriever.from_pretrained(adapter)
    assert "rabtriever distill" in caught.value.hint


def test_a_base_model_is_no_retriever(base: Path) -> None:
    with pytest.raises(InputError, match="not a model that Rabtriever saved"):
        Retriever.from_pretrained(base)


def test_a_missing_predictor_is_named(whole: Path) -> None:
    (whole / "predictor.safetensors").unlink()
    with pytest.raises(DataError, match=r"predictor\.safetensors"):
        Retriever.from_pretrained(whole, dtype="float32")


def test_a_predictor_of_another_shape_is_refused(whole: Path) -> None:
    edit_json(whole / "config.json", lambda config: config["predictor"].update(rank=4))
    with pytest.raises(MismatchError, match="tensor"):
        Retriever.from_pretrained(whole, dtype="float32")


# --- damaged files


def test_nan_in_a_base_model_is_refused(base: Path) -> None:
    edit_tensors(base / "model.safetensors", first_nan)
    with pytest.raises(InputError, match="NaN"):
        untrained(base)


def test_nan_in_a_trained_model_is_refused(whole: Path) -> None:
    edit_tensors(whole / "backbone" / "model.safetensors", first_nan)
    with pytest.raises(InputError, match="NaN"):
        Reranker.from_pretrained(whole, dtype="float32")


def test_nan_in_an_adapter_is_refused(adapter: Path) -> None:
    edit_tensors(adapter / "backbone" / "adapter_model.safetensors", first_nan)
    with pytest.raises(InputError, match="NaN"):
        Reranker.from_pretrained(adapter, dtype="float32")


def test_nan_in_a_predictor_is_refused(whole: Path) -> None:
    edit_tensors(whole / "predictor.safetensors", first_nan)
    with pytest.raises(DataError, match="not finite"):
        Retriever.from_pretrained(whole, dtype="float32")


@pytest.mark.parametrize(
    "name",
    [
        "backbone/model.safetensors",
        "backbone/tokenizer.json",
        "backbone/config.json",
        "predictor.safetensors",
        "config.json",
    ],
)
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_file_is_one_sentence(name: str, damage: str, whole: Path) -> None:
    file = whole / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        Retriever.from_pretrained(whole, dtype="float32")
    assert "\n" not in str(caught.value)
    assert str(whole) in str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_adapter_is_one_sentence(name: str, damage: str, adapter: Path) -> None:
    file = adapter / "backbone" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        Reranker.from_pretrained(adapter, dtype="float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_base_model_is_one_sentence(name: str, base: Path) -> None:
    file = base / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        untrained(base)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_refused(base: Path) -> None:
    edit_json(base / "config.json", lambda config: config.update(model_type="nonesuch", architectures=["NoneSuch"]))
    with pytest.raises(InputError, match="does not load as a causal language model"):
        untrained(base)


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Reranker.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError):
        Retriever.from_pretrained(tmp_path / "nowhere")

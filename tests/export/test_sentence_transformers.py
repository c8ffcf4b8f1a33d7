"""An exported student gives the same vectors through sentence-transformers alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from closeness import assert_same
from export.conftest import PROMPT
from rabtriever import Retriever
from rabtriever.errors import InputError, RabtrieverError
from rabtriever.export import export_sentence_transformers, report
from rabtriever.export.modules import document_layers, query_layers
from rabtriever.graph_folder import MARKER
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import PromptConfig

FAMILIES = ("llama", "qwen2", "gemma3", "gpt2", "phi")
"""The rest differ from these in nothing that an export could lose; each takes two seconds."""
TEXTS = ["", "a", " x", "I spilled my coke", "<|im_end|></s> \u05e9\u05dc\u05d5\u05dd \U0001f680", "what now? " * 3]
VARIANTS = {
    "one-layer": PredictorConfig(zero_init=False, rank=None, layers=1),
    "three-layers": PredictorConfig(zero_init=False, rank=None, layers=3, width=48),
    "raw": PredictorConfig(zero_init=False, rank=None, standardize=False),
    "no-product": PredictorConfig(zero_init=False, multiply=False),
    "low-rank": PredictorConfig(zero_init=False, rank=8),
    "one-layer-rank": PredictorConfig(zero_init=False, rank=8, layers=1),
}
Students = Callable[..., Path]


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


def assert_equal(model: SentenceTransformer, student: Retriever, texts: list[str] = TEXTS) -> None:
    queries, documents = student.encode_query(texts), student.encode_document(texts)
    found_queries, found_documents = model.encode_query(texts), model.encode_document(texts)
    assert_same(found_queries, queries)
    assert_same(found_documents, documents)
    expected = student.similarity(queries, documents) - np.float32(student.bias)
    assert_same(model.similarity(found_queries, found_documents), expected)
    assert_same(np.stack([model.encode_query(text) for text in texts[:4]]), queries[:4])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_queries_with_an_adapter_have_weights_of_their_own(
    family: str, student_folder: Students, exported: Students
) -> None:
    folder = exported(family, query_side=True)
    assert_equal(load(folder), Retriever.from_pretrained(student_folder(family, query_side=True), dtype="float32"))
    one, other = (folder / f"{side}_0_Transformer" / "model.safetensors" for side in ("query", "document"))
    assert one.read_bytes() != other.read_bytes()
    readme = (folder / "README.md").read_text()
    assert "Each tower has weights of its own" in readme
    assert "query.model = document.model" not in readme  # it would read queries without the adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_same_vectors(family: str, student_folder: Students, exported: Students) -> None:
    found = json.loads((exported(family) / MARKER).read_text())
    assert max(found["differences"].values()) < 1e-5
    assert_equal(load(exported(family)), Retriever.from_pretrained(student_folder(family), dtype="float32"))


@pytest.mark.parametrize("variant", ["one-layer", "three-layers", "no-product", "low-rank"])
def test_every_predictor_gives_the_same_vectors(variant: str, student_folder: Students, tmp_path: Path) -> None:
    folder = student_folder("llama", VARIANTS[variant])
    export_sentence_transformers(folder, tmp_path / "out")
    student = Retriever.from_pretrained(folder, dtype="float32")
    model = load(tmp_path / "out")
    assert_equal(model, student)
    assert model.get_embedding_dimension() == student.dimension


@torch.inference_mode()
@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_fold_all_that_is_linear(variant: str) -> None:
    predictor, direction = Predictor(16, VARIANTS[variant]), torch.randn(16)
    e_q, e_d = 3 * torch.randn(9, 16) + 5, torch.randn(7, 16) - 2
    predictor.fit_standardization(e_q, e_d)
    out = e_q
    layers = query_layers(predictor, direction)
    for place, (weight, bias) in enumerate(layers):
        out = out @ weight.T + bias
        out = out.relu() if place < len(layers) - 1 else out
    assert_same(out, predictor.fold(e_q, direction))
    for weight, bias in document_layers(predictor):
        assert_same(e_d @ weight.T + bias, predictor.document(e_d))


def test_the_side_of_the_padding_makes_no_difference(student_folder: Students, exported: Students) -> None:
    model = load(exported())
    for route in ("query", "document"):
        model[0].sub_modules[route][0].tokenizer.padding_side = "left"
    assert_equal(model, Retriever.from_pretrained(student_folder("llama"), dtype="float32"))


def test_a_base_model_without_a_chat_template(student_folder: Students, exported: Students) -> None:
    """Its prompt begins with the token that opens a text."""
    options = {"chat": False, "bos": True}
    assert_equal(
        load(exported(**options)), Retriever.from_pretrained(student_folder("llama", **options), dtype="float32")
    )


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_long_texts(share: float, student_folder: Students, tmp_path: Path) -> None:
    """Documents keep their start; queries one end, which is the student's own where it keeps one end only."""
    folder = student_folder("llama", None, PROMPT.model_copy(update={"query_start": share}))
    found = export_sentence_transformers(folder, tmp_path / "out")
    model, student = load(tmp_path / "out"), Retriever.from_pretrained(folder, dtype="float32")
    words = [f"word{i}" for i in range(200)]
    long = " ".join(words)
    assert_same(model.encode_document([long]), student.encode_document([long]))
    same = np.allclose(model.encode_query([long]), student.encode_query([long]), atol=1e-4)
    assert same == (share != 0.5)
    assert any("both ends" in note for note in found.notes) == (share == 0.5)
    tail = student.reranker.prompt.parts.query_tail
    assert model[0].preprocess([long], task="query")["input_ids"][0].tolist()[-len(tail) :] == tail


def test_weights_are_stored_once_in_the_format_they_had(student_folder: Students, tmp_path: Path) -> None:
    folder = student_folder("llama", dtype=torch.bfloat16)
    export_sentence_transformers(folder, tmp_path / "out")
    files = [tmp_path / "out" / f"{route}_0_Transformer" / "model.safetensors" for route in ("query", "document")]
    assert files[0].samefile(files[1])
    numbers = sum(p.numel() for p in load(tmp_path / "out")[0].sub_modules["query"][0].model.parameters())
    assert files[0].stat().st_size < 2.2 * numbers  # two bytes each, and a header
    assert_equal(load(tmp_path / "out"), Retriever.from_pretrained(folder, dtype="float32"))


def test_without_hard_links_weights_are_copied(
    student_folder: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = student_folder("llama")
    export_sentence_transformers(folder, tmp_path / "out")
    assert "stand in the folder twice" in (tmp_path / "out" / "README.md").read_text()
    assert_equal(load(tmp_path / "out"), Retriever.from_pretrained(folder, dtype="float32"))


def test_the_readme_tells_the_bias(student_folder: Students, exported: Students) -> None:
    """Its example runs, and gives log-odds."""
    student = Retriever.from_pretrained(student_folder("phi"), dtype="float32")  # its head has a bias
    text = (exported("phi") / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0].replace('SentenceTransformer("out")', "load(folder)")
    scope: dict[str, Any] = {"load": load, "folder": exported("phi")}
    exec(code.replace("from sentence_transformers import SentenceTransformer\n", ""), scope)
    assert_same(scope["scores"], student.score("I spilled my coke", ["find a sponge", "close the drawer"])[None])


def test_towers_can_share_their_model_in_memory_as_the_readme_says(
    student_folder: Students, exported: Students
) -> None:
    model = load(exported())
    exec((exported() / "README.md").read_text().split("```python\n")[2].split("```")[0], {"model": model})
    assert_equal(model, Retriever.from_pretrained(student_folder("llama"), dtype="float32"))


def test_a_text_without_a_task_is_refused(exported: Students) -> None:
    with pytest.raises(ValueError, match="route"):
        load(exported()).encode(["a"])


def test_a_former_export_is_replaced_and_nothing_else(student_folder: Students, tmp_path: Path) -> None:
    folder = student_folder("llama")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for occupied in (other, folder):
        with pytest.raises(InputError, match="holds other files"):
            export_sentence_transformers(folder, occupied)
    for _ in range(2):
        export_sentence_transformers(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / MARKER).read_text())["kind"] == "sentence-transformers"


def test_an_export_that_differs_leaves_nothing_behind(
    student_folder: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(predictor: Predictor, direction: torch.Tensor) -> Any:
        return [(weight * 1.01, bias) for weight, bias in query_layers(predictor, direction)]

    from rabtriever.export import modules

    monkeypatch.setattr(modules, "query_layers", wrong)
    with pytest.raises(RabtrieverError, match="query vectors differ"):
        export_sentence_transformers(student_folder("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_in_a_sentence(
    student_folder: Students, tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rabtriever import Reranker

    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=PromptConfig(), dtype="float32")
    teacher.save_pretrained(tmp_path / "teacher")
    with pytest.raises(InputError, match="reranker \\(teacher\\) only"):
        export_sentence_transformers(tmp_path / "teacher", tmp_path / "out")
    monkeypatch.setattr(report, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="not installed.*rabtriever\\[export\\]"):
        export_sentence_transformers(student_folder("llama"), tmp_path / "out")

"""Queries read with an adapter: documents and teacher stay to the last bit, and what was saved is what is loaded."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from closeness import assert_same
from query_sides import random_adapter
from rabtriever import Index, Reranker, Retriever
from rabtriever.backbone import Backbone
from rabtriever.errors import InputError, MismatchError
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import Prompt
from rabtriever.query_side import QuerySide
from tiny_models import FAMILIES
from toy_data import NEEDS, SHORT, TOOLS

Load = Callable[..., Backbone]
PAIRS = [(need, tool) for need in NEEDS for tool in TOOLS]


def student(teacher: Reranker, side: QuerySide | None = None) -> Retriever:
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    return Retriever(teacher, predictor, side)


@pytest.fixture
def saved(tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    side = QuerySide(teacher.backbone, *random_adapter(teacher.backbone))
    student(teacher, side).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_alone_are_read_with_the_adapter(family: str, tiny_backbone: Load) -> None:
    from peft import get_peft_model, set_peft_model_state_dict

    backbone = tiny_backbone(family)
    teacher = Reranker(backbone, Prompt(backbone.tokenizer, SHORT), weights_hash="tiny")
    plain = student(teacher)
    documents, queries, scores = plain.encode_document(TOOLS), plain.encode_query(NEEDS), teacher.score_pairs(PAIRS)
    state, settings = random_adapter(backbone)
    found = student(teacher, QuerySide(backbone, state, settings))

    assert np.array_equal(found.encode_document(TOOLS), documents)
    teacher.forget()
    assert np.array_equal(teacher.score_pairs(PAIRS), scores)
    assert np.abs(found.encode_query(NEEDS) - queries).max() > 0.01 * np.abs(queries).max()
    assert_same(np.concatenate([found.encode_query([need]) for need in NEEDS]), found.encode_query(NEEDS))

    adapted = get_peft_model(copy.deepcopy(backbone.model), copy.copy(settings))  # peft's own way, not merged
    set_peft_model_state_dict(adapted, state)
    own = Backbone(adapted.get_base_model(), backbone.tokenizer)
    assert_same(found.query_states(NEEDS), own.last_states([teacher.prompt.query_ids(need) for need in NEEDS]), 1e-4)


def test_what_the_adapter_does_not_change_is_shared(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("llama")
    side = QuerySide(backbone, *random_adapter(backbone, freeze_layers=1))
    own, theirs = (dict(b.model.named_parameters()) for b in (side.backbone, backbone))
    assert own.keys() == theirs.keys()
    apart = {name for name in own if own[name].data_ptr() != theirs[name].data_ptr()}
    assert apart == {name for name in own if ".layers." in name and ".layers.0." not in name and "norm" not in name}
    assert not any(parameter.requires_grad for parameter in own.values())


def test_saved_is_loaded(saved: Path) -> None:
    first, again = (Retriever.from_pretrained(saved, dtype="float32") for _ in range(2))
    assert first.query_side is not None
    assert np.array_equal(first.encode_query(NEEDS), again.encode_query(NEEDS))
    first.save_pretrained(saved.with_name("copy"))
    copied = Retriever.from_pretrained(saved.with_name("copy"), dtype="float32")
    assert np.array_equal(copied.encode_query(NEEDS), first.encode_query(NEEDS))
    assert copied.fingerprint == first.fingerprint
    assert student(first.reranker).fingerprint != first.fingerprint
    config = json.loads((saved / "config.json").read_text())
    assert (config["format_version"], config["query_adapter"]) == (2, True)
    assert Reranker.from_pretrained(saved, dtype="float32").fingerprint == first.reranker.fingerprint


def test_a_model_without_one_is_written_as_before(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    student(teacher).save_pretrained(tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["format_version"] == 1
    assert "query_adapter" not in config
    assert not (tmp_path / "plain" / "query").exists()


def test_an_index_finds_by_it(saved: Path, tmp_path: Path) -> None:
    model = Retriever.from_pretrained(saved, dtype="float32")
    index = Index.create(tmp_path / "index", model)
    index.add(TOOLS)
    best = model.similarity(model.encode_query(NEEDS[:1]), model.encode_document(TOOLS))[0]
    hits = index.search(NEEDS[0], k=3)
    assert [hit.text for hit in hits] == [TOOLS[i] for i in np.argsort(-best)[:3]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(best, reverse=True)[:3], abs=1e-4)


def test_what_is_damaged_or_of_another_model_is_refused(saved: Path, tiny_backbone: Load) -> None:
    file = saved / "query" / "adapter_model.safetensors"
    good = load_file(file)
    name = min(good)

    save_file({**good, name: good[name] * 2}, file)
    with pytest.raises(MismatchError, match="query"):
        Retriever.from_pretrained(saved, dtype="float32")
    save_file({**good, name: good[name] * torch.nan}, file)
    with pytest.raises(InputError, match="NaN"):
        Retriever.from_pretrained(saved, dtype="float32")
    save_file({key: tensor for key, tensor in good.items() if key != name}, file)
    with pytest.raises(InputError, match="does not fit the language model"):
        Retriever.from_pretrained(saved, dtype="float32")
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="does not load as a LoRA adapter"):
        Retriever.from_pretrained(saved, dtype="float32")
    shutil.rmtree(saved / "query")
    with pytest.raises(InputError, match="query does not load"):
        Retriever.from_pretrained(saved, dtype="float32")

    wider = tiny_backbone("llama", hidden=64)
    with pytest.raises(InputError, match="does not fit the language model"):
        QuerySide(wider, *random_adapter(tiny_backbone("llama")))

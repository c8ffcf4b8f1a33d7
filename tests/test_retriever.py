"""The student: the fold is exact through the whole head, and a text's vector depends on that text alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from closeness import assert_same
from rabtriever import Reranker, Retriever
from rabtriever import retriever as module
from rabtriever.backbone import Backbone
from rabtriever.errors import InputError
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import Prompt
from tiny_models import FAMILIES
from toy_data import NEEDS, SHORT, TOOLS

Load = Callable[..., Backbone]

VARIANTS = {
    "paper": PredictorConfig(zero_init=False, rank=None),
    "raw": PredictorConfig(zero_init=False, rank=None, standardize=False),
    "one-layer": PredictorConfig(zero_init=False, rank=None, layers=1),
    "three-layers": PredictorConfig(zero_init=False, rank=None, layers=3, width=48),
    "no-product": PredictorConfig(zero_init=False, multiply=False),
    "low-rank": PredictorConfig(zero_init=False, rank=8),
    "wide-rank": PredictorConfig(zero_init=False, rank=40),
}


def student(backbone: Backbone, config: PredictorConfig = VARIANTS["paper"], seed: int = 0) -> Retriever:
    """As after training, for what matters here: a random predictor whose statistics fit the texts."""
    teacher = Reranker(backbone, Prompt(backbone.tokenizer, SHORT), weights_hash="tiny")
    torch.manual_seed(seed)
    predictor = Predictor(backbone.hidden_size, config)
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    return Retriever(teacher, predictor)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_the_fold_is_the_full_head(family: str, variant: str, tiny_backbone: Load) -> None:
    """Eq. 12 pair by pair, through every row of the head, against one inner product of two vectors."""
    model = student(tiny_backbone(family), VARIANTS[variant])
    teacher = model.reranker
    e_q, e_d = teacher.query_states(NEEDS), teacher.document_states(TOOLS)
    expected = torch.empty(len(NEEDS), len(TOOLS))
    for row in range(len(NEEDS)):
        e_student = model.predictor(e_q[row].expand(len(TOOLS), -1), e_d)
        logits = teacher.backbone.full_logits(e_student)
        expected[row] = logits[:, teacher.prompt.true_id] - logits[:, teacher.prompt.false_id]
    found = model.similarity(model.encode_query(NEEDS), model.encode_document(TOOLS))
    assert_same(found, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_vectors_have_the_shape_they_say(variant: str, tiny_backbone: Load) -> None:
    model = student(tiny_backbone("llama"), VARIANTS[variant])
    queries, documents = model.encode_query(NEEDS), model.encode_document(TOOLS)
    size = {"no-product": 1, "low-rank": 8, "wide-rank": 40}.get(variant, 32)
    assert queries.shape == (len(NEEDS), size)
    assert documents.shape == (len(TOOLS), size)
    assert model.dimension == size
    assert queries.dtype == documents.dtype == np.float32


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_text_has_one_vector_whatever_is_beside_it(
    family: str, tiny_backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student(tiny_backbone(family))
    texts = ["a", "", *NEEDS, "x" * 300, NEEDS[0]]
    for encode in (model.encode_query, model.encode_document):
        expected = np.concatenate([encode([text]) for text in texts])
        assert_same(encode(texts), expected)
        order = np.random.default_rng(0).permutation(len(texts))
        assert_same(encode([texts[i] for i in order]), expected[order])
        with monkeypatch.context() as patch:
            patch.setattr(module, "_CHUNK", 2)
            assert_same(encode(texts), expected)


def test_scores_are_similarities(tiny_backbone: Load) -> None:
    model = student(tiny_backbone("phi"))  # its head has a bias
    assert model.bias != 0
    similarity = model.similarity(model.encode_query(NEEDS), model.encode_document(TOOLS))
    assert_same(model.score(NEEDS[1], TOOLS), similarity[1])
    products = model.encode_query(NEEDS) @ model.encode_document(TOOLS).T
    assert_same(similarity - products, np.full_like(products, model.bias), 1e-4)


def test_without_the_product_all_documents_score_the_same(tiny_backbone: Load) -> None:
    """The paper's ablation: why the multiplication is indispensable."""
    scores = student(tiny_backbone("llama"), VARIANTS["no-product"]).score(NEEDS[0], TOOLS)
    assert np.ptp(scores) == 0


def test_documents_stand_as_the_teacher_reads_them(tiny_backbone: Load) -> None:
    """Eq. 8: the paper's student indexes the teacher's own state of the document."""
    model = student(tiny_backbone("llama"))
    assert_same(model.encode_document(TOOLS), model.reranker.document_states(TOOLS))


def test_no_texts_give_no_vectors(tiny_backbone: Load) -> None:
    model = student(tiny_backbone("llama"))
    assert model.encode_document([]).shape == (0, 32)
    assert model.similarity(model.encode_query(["a"]), model.encode_document([])).shape == (1, 0)
    assert model.score("a", []).shape == (0,)


@pytest.mark.parametrize("encode", ["encode_query", "encode_document"])
def test_one_string_is_not_a_list_of_texts(encode: str, tiny_backbone: Load) -> None:
    with pytest.raises(InputError, match="list of texts"):
        getattr(student(tiny_backbone("llama")), encode)("find a sponge")


@pytest.mark.parametrize("shape", [(2, 31), (32,), (2, 2, 32)])
def test_vectors_of_another_model_are_refused(shape: tuple[int, ...], tiny_backbone: Load) -> None:
    model = student(tiny_backbone("llama"))
    with pytest.raises(InputError, match=r"shape \(n, 32\)"):
        model.similarity(np.zeros(shape, np.float32), np.zeros((1, 32), np.float32))
    with pytest.raises(InputError, match=r"shape \(n, 32\)"):
        model.similarity(np.zeros((1, 32), np.float32), np.zeros(shape, np.float32))


def test_the_fingerprint_follows_all_that_vectors_depend_on(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("llama")
    model = student(backbone)
    others = [
        student(backbone, seed=1),
        student(backbone, VARIANTS["raw"]),
        Retriever(Reranker(backbone, Prompt(backbone.tokenizer, SHORT), weights_hash="other"), model.predictor),
        Retriever(Reranker(backbone, Prompt(backbone.tokenizer), weights_hash="tiny"), model.predictor),
    ]
    assert student(backbone).fingerprint == model.fingerprint
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_have_a_fingerprint_of_their_own(variant: str, tiny_backbone: Load) -> None:
    backbone, texts = tiny_backbone("llama"), ["a sponge", "a cup of tea"]
    models = [student(backbone, VARIANTS[variant], seed=seed) for seed in (0, 0, 1)]
    vectors = [model.encode_document(texts) for model in models]
    assert models[0].document_fingerprint == models[1].document_fingerprint != models[0].fingerprint
    for model, found in zip(models, vectors, strict=True):
        alike = np.array_equal(found, vectors[0])
        assert (model.document_fingerprint == models[0].document_fingerprint) == alike
    with torch.no_grad():
        models[1].predictor.mlp[0].weight.add_(1)
    again = Retriever(models[1].reranker, models[1].predictor)
    assert again.document_fingerprint == models[0].document_fingerprint
    assert again.fingerprint != models[0].fingerprint


def test_another_teacher_or_prompt_reads_documents_otherwise(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("llama")
    model = student(backbone)
    others = [
        student(backbone, VARIANTS["low-rank"]),
        Retriever(Reranker(backbone, Prompt(backbone.tokenizer, SHORT), weights_hash="other"), model.predictor),
        Retriever(Reranker(backbone, Prompt(backbone.tokenizer), weights_hash="tiny"), model.predictor),
    ]
    assert len({model.document_fingerprint, *(other.document_fingerprint for other in others)}) == 4

"""The teacher: its scores are those of plain transformers on the joined ids, whatever is asked together or before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from closeness import assert_same
from rabtriever import Reranker
from rabtriever.backbone import Backbone
from rabtriever.errors import InputError
from rabtriever.losses import paper_relevance
from rabtriever.prompt import Prompt, PromptConfig
from tiny_models import FAMILIES

Load = Callable[..., Backbone]

# Short words around the texts, so that a window of 16 tokens still reaches the document through three layers.
PROMPT = PromptConfig(document="{text}\n", query="{text} <T>?", max_document_tokens=24, max_query_tokens=12)
DOCUMENTS = ["find a sponge", "", "open the window", "a", "bring me the juice from the kitchen please", "x" * 40]
QUERIES = ["I spilled my coke", "", "the cat", "what now? " * 6]


def reranker(backbone: Backbone, prefix_bytes: int = 1 << 30) -> Reranker:
    return Reranker(backbone, Prompt(backbone.tokenizer, PROMPT), prefix_bytes=prefix_bytes)


@torch.inference_mode()
def plain_score(teacher: Reranker, query: str, document: str) -> float:
    """One pair through the whole model, nothing shared: states to logits by the model's own forward."""
    prompt, model = teacher.prompt, teacher.backbone.model
    ids = torch.tensor([prompt.document_ids(document) + prompt.query_ids(query)])
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = model(ids).logits[0, -1]
    if cap is not None:  # the score is defined on the uncapped logits
        logits = cap * torch.atanh(logits.double() / cap)
    return float(logits[prompt.true_id] - logits[prompt.false_id])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_plain_transformers(family: str, tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone(family))
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    expected = np.array([plain_score(teacher, *pair) for pair in pairs])
    # A cap flattens large logits, and undoing it magnifies their rounding.
    tolerance = 1e-3 if family == "gemma2" else 2e-5
    assert_same(teacher.score_pairs(pairs), expected, tolerance)
    assert_same(teacher.score(QUERIES[0], DOCUMENTS), expected[: len(DOCUMENTS)], tolerance)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize(("batch_tokens", "prefix_bytes"), [(60, 1 << 30), (1, 0), (8192, 0), (8192, 20_000)])
def test_budgets_change_no_score(family: str, tiny_backbone: Load, batch_tokens: int, prefix_bytes: int) -> None:
    backbone = tiny_backbone(family)
    small = reranker(Backbone(backbone.model, backbone.tokenizer, batch_tokens=batch_tokens), prefix_bytes)
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    expected = reranker(backbone).score_pairs(pairs)
    assert_same(small.score_pairs(pairs), expected)
    assert_same(small.score_pairs(pairs), expected)  # now with what was kept


def test_order_and_repetition_change_no_score(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS] * 2
    order = np.random.default_rng(0).permutation(len(pairs))
    scores = teacher.score_pairs(pairs)
    shuffled = teacher.score_pairs([pairs[i] for i in order])
    assert_same(shuffled, scores[order])
    assert_same(scores[: len(pairs) // 2], scores[len(pairs) // 2 :])


def test_a_document_read_before_costs_nothing(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    lengths: list[int] = []
    hook = teacher.backbone.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: lengths.append(inputs[0].numel())
    )
    try:
        teacher.score("the cat", DOCUMENTS)
        first = sum(lengths)
        lengths.clear()
        teacher.score("the cat", DOCUMENTS)
        assert sum(lengths) == len(DOCUMENTS) * len(teacher.prompt.query_ids("the cat")) < first
        lengths.clear()
        teacher.forget()
        teacher.score("the cat", DOCUMENTS)
        assert sum(lengths) == first
    finally:
        hook.remove()


def test_kept_documents_stay_within_the_budget(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("llama")
    one = backbone.prefixes([Prompt(backbone.tokenizer, PROMPT).document_ids("find a sponge")])[0].nbytes
    teacher = reranker(backbone, prefix_bytes=3 * one)
    for text in ["find a sponge", "find a spoon", "find the sponge", "open", "the window", "find a sponge"]:
        teacher.score("the cat", [text])
        held = sum(prefix.nbytes for prefix in teacher._kept.values())
        assert held == teacher._kept_bytes <= 3 * one
    assert teacher._kept


def test_forgetting_keeps_rows_that_losses_can_use(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    before = teacher.rows
    with torch.inference_mode():
        teacher.forget()
    assert not teacher.rows.weight.is_inference()
    assert torch.equal(teacher.rows.weight, before.weight)


def test_states_are_the_joined_passes(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("qwen3"))
    pairs = [("the cat", "find a sponge"), ("", "")]
    ids = [teacher.prompt.document_ids(document) + teacher.prompt.query_ids(query) for query, document in pairs]
    assert_same(teacher.states(pairs), teacher.backbone.last_states(ids))


def test_document_and_query_states_are_the_parts_alone(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("qwen3"))
    prefixes = teacher.backbone.prefixes([teacher.prompt.document_ids(text) for text in DOCUMENTS])
    assert_same(teacher.document_states(DOCUMENTS), torch.stack([prefix.last for prefix in prefixes]))
    expected = teacher.backbone.last_states([teacher.prompt.query_ids(text) for text in QUERIES])
    assert_same(teacher.query_states(QUERIES), expected)


def test_rank_is_by_score_and_ties_keep_their_order(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    documents = [*DOCUMENTS, DOCUMENTS[0]]
    scores = teacher.score("the cat", documents)
    ranked = teacher.rank("the cat", documents)
    assert sorted(position for position, _ in ranked) == list(range(len(documents)))
    assert [score for _, score in ranked] == sorted(map(float, scores), reverse=True)
    assert all(isinstance(position, int) and isinstance(score, float) for position, score in ranked)  # JSON takes them
    assert teacher.rank("the cat", documents, k=2) == ranked[:2]
    assert teacher.rank("the cat", ["a", "a", "a"])[0][0] == 0


def test_probabilities_are_the_two_answers_share(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    logits = teacher.rows.logits(teacher.states([("the cat", text) for text in DOCUMENTS]))
    found = teacher.predict_proba("the cat", DOCUMENTS)
    assert found.dtype == np.float32
    assert_same(found, logits.softmax(-1)[:, 0])


def test_extreme_scores_have_probabilities(tiny_backbone: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = reranker(tiny_backbone("llama"))
    monkeypatch.setattr(teacher, "score", lambda query, documents: np.array([-1e4, 0, 1e4], np.float32))
    assert teacher.predict_proba("q", ["a", "b", "c"]).tolist() == [0.0, 0.5, 1.0]


def test_eq_9_falls_where_the_score_rises(tiny_backbone: Load) -> None:
    """The paper's formula, offered under its own name, ranks the other way round."""
    teacher = reranker(tiny_backbone("llama"))
    states = teacher.states([("the cat", text) for text in DOCUMENTS])
    logits = teacher.rows.logits(states).log_softmax(-1)  # over the two answers
    printed = paper_relevance(logits[:, 0], logits[:, 1])
    assert printed.argsort().tolist() == (-logits[:, 0]).argsort().tolist()


def test_nothing_to_score_is_no_error(tiny_backbone: Load) -> None:
    teacher = reranker(tiny_backbone("llama"))
    assert teacher.score("the cat", []).shape == (0,)
    assert teacher.rank("the cat", []) == []
    assert teacher.document_states([]).shape == (0, 32)


def test_one_string_is_not_a_list_of_documents(tiny_backbone: Load) -> None:
    with pytest.raises(InputError, match="list of"):
        reranker(tiny_backbone("llama")).score("the cat", "find a sponge")


def test_a_prompt_longer_than_the_model_is_refused(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("gpt2")
    config = PROMPT.model_copy(update={"max_document_tokens": 2048})
    with pytest.raises(InputError, match="do not fit the model's 2048 positions") as caught:
        Reranker(backbone, Prompt(backbone.tokenizer, config))
    assert "max_document_tokens" in caught.value.hint


def test_a_longest_pair_is_scored(tiny_backbone: Load) -> None:
    """Learned positions end: the longest prompt that is allowed must not run past them."""
    backbone = tiny_backbone("gpt2")
    constant = Prompt(backbone.tokenizer, PROMPT).longest - 24 - 12
    config = PROMPT.model_copy(update={"max_document_tokens": 2048 - constant - 12})
    teacher = Reranker(backbone, Prompt(backbone.tokenizer, config))
    assert np.isfinite(teacher.score("q " * 100, ["d " * 5000])).all()


def test_any_causal_lm_folder_is_an_untrained_reranker(tiny_folder: Callable[..., Path]) -> None:
    folder = tiny_folder("qwen2", chat=False, bos=True)
    teacher = Reranker.from_pretrained(folder, prompt=PROMPT, dtype="float32")
    assert teacher.prompt.config == PROMPT
    assert teacher.base is not None
    assert teacher.base.architecture == "Qwen2ForCausalLM"
    assert np.isfinite(teacher.score("the cat", DOCUMENTS)).all()

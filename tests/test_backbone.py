"""The identities that everything else rests on, over every family of :mod:`tiny_models`, in float32."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from closeness import assert_same
from rabtriever.backbone import Backbone
from rabtriever.batches import common_start, token_batches
from rabtriever.errors import InputError
from rabtriever.numerics import choose_dtype
from tiny_models import FAMILIES, WINDOW, tiny_tokenizer

Load = Callable[..., Backbone]

DOCUMENT_LENGTHS = (1, 3, WINDOW - 1, WINDOW + 3, 2 * WINDOW + 5)
QUERY_LENGTHS = (1, 2, 7, WINDOW + 2)


def sequences(lengths: tuple[int, ...], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 380, (length,), generator=generator).tolist() for length in lengths]


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest, tiny_backbone: Load) -> Backbone:
    return tiny_backbone(request.param)


@pytest.fixture
def pairs() -> tuple[list[list[int]], list[list[int]]]:
    """Documents and queries of all combinations of lengths, in an order that mixes them."""
    documents, queries = sequences(DOCUMENT_LENGTHS, 1), sequences(QUERY_LENGTHS, 2)
    combined = list(itertools.product(documents, queries))
    order = torch.randperm(len(combined), generator=torch.Generator().manual_seed(3)).tolist()
    return [combined[i][0] for i in order], [combined[i][1] for i in order]


@torch.inference_mode()
def hidden(backbone: Backbone, ids: list[int]) -> Tensor:
    """All states of one sequence by plain transformers, ``(L, d)``."""
    states: Tensor = backbone.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return states


def one_by_one(backbone: Backbone, ids: list[list[int]]) -> Tensor:
    return torch.stack([hidden(backbone, sequence)[-1] for sequence in ids])


def test_a_document_does_not_see_the_query(backbone: Backbone) -> None:
    """Eq. 8: M(D,Q)[:L_D] == M(D), on both sides of a sliding window."""
    for document, query in itertools.product(sequences(DOCUMENT_LENGTHS, 1), sequences(QUERY_LENGTHS, 2)):
        assert_same(hidden(backbone, document + query)[: len(document)], hidden(backbone, document))


def test_states_of_texts_differ(backbone: Backbone) -> None:
    """The tests here would hold for a model that ignores its input: these do not."""
    states = one_by_one(backbone, sequences((9, 9, 9), 4))
    assert float(torch.pdist(states).min()) > 0.1 * float(states.abs().max())


def test_a_batch_gives_what_single_sequences_give(backbone: Backbone) -> None:
    ids = sequences((5, 1, 40, 12, 12, 2), 5)
    expected = one_by_one(backbone, ids)
    assert_same(backbone.last_states(ids), expected)
    assert_same(torch.cat([backbone.last_states([sequence]) for sequence in ids]), expected)


@pytest.mark.parametrize("budget", [1, 30, 100])
def test_the_budget_of_a_batch_changes_nothing(backbone: Backbone, budget: int) -> None:
    ids = sequences((5, 1, 40, 12, 12, 2), 5)
    small = Backbone(backbone.model, backbone.tokenizer, batch_tokens=budget)
    assert_same(small.last_states(ids), one_by_one(backbone, ids))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(backbone: Backbone, side: str) -> None:
    ids = sequences((5, 1, 40, 12, 23, 2), 6)
    with torch.inference_mode():
        found = backbone.forward_last(**backbone.pad(ids, side=side))  # type: ignore[arg-type]
    assert_same(found, one_by_one(backbone, ids))


@pytest.mark.parametrize("budget", [1, 40, 8192])
def test_a_kept_prefix_gives_what_reading_both_parts_gives(
    backbone: Backbone, pairs: tuple[list[list[int]], list[list[int]]], budget: int
) -> None:
    """Unequal documents and unequal queries in one batch, within and beyond a sliding window."""
    documents, queries = pairs
    small = Backbone(backbone.model, backbone.tokenizer, batch_tokens=budget)
    prefixes = small.prefixes(documents)
    found = small.last_states_after(prefixes, queries)
    joined = [document + query for document, query in zip(documents, queries, strict=True)]
    assert_same(found, one_by_one(backbone, joined))
    assert_same(torch.stack([prefix.last for prefix in prefixes]), one_by_one(backbone, documents))


@pytest.mark.parametrize("budget", [1, 40, 8192])
def test_states_are_those_at_every_position(
    backbone: Backbone, pairs: tuple[list[list[int]], list[list[int]]], budget: int
) -> None:
    documents, queries = pairs
    small = Backbone(backbone.model, backbone.tokenizer, batch_tokens=budget)
    alone, behind = small.states(queries), small.states(queries, small.prefixes(documents))
    for document, query, first, second in zip(documents, queries, alone, behind, strict=True):
        ends = range(1, len(query) + 1)
        assert_same(first, one_by_one(backbone, [query[:end] for end in ends]))
        assert_same(second, one_by_one(backbone, [document + query[:end] for end in ends]))


def test_what_many_sequences_start_with_is_read_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = sequences((WINDOW + 4,), 3)[0]
    rows = [opening + own for own in sequences((1, 2, 5, 9, 30, 2, 1, 17, 3), 4)]
    alone = torch.cat([backbone.last_states([row]) for row in rows])
    read: list[int] = []
    pad = backbone.pad

    def counted(ids: list[list[int]], *side: str) -> dict[str, Tensor]:
        read.append(sum(map(len, ids)))
        return pad(ids, *side)

    monkeypatch.setattr(backbone, "pad", counted)
    assert_same(backbone.last_states(rows), alone)
    assert sum(read) == sum(map(len, rows)) - len(opening) * (len(rows) - 1)
    kept = backbone.prefixes(rows)
    assert_same(torch.stack([prefix.last for prefix in kept]), alone)
    for row, prefix in zip(rows, kept, strict=True):
        assert prefix.length == len(row)
        assert_same(prefix.states, backbone.prefixes([row])[0].states)
        assert prefix.states.untyped_storage().nbytes() == prefix.states.nbytes


def test_what_sequences_start_with_is_read_once_with_all_its_gradients(backbone: Backbone) -> None:
    opening = sequences((WINDOW + 4,), 3)[0]
    rows = [opening + own for own in sequences((1, 2, 5, 9, 30, 2, 1, 17, 3), 4)]
    weight = torch.randn(len(rows), backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    trained = next(backbone.layers[0].parameters())
    found = []
    for forward in (lambda: backbone.forward_alike(rows), lambda: backbone.forward_last(**backbone.pad(rows))):
        backbone.model.zero_grad()
        states = forward()
        (states * weight).sum().backward()
        assert trained.grad is not None
        found.append((states.detach(), trained.grad.clone()))
    assert_same(found[0][0], found[1][0])
    assert_same(found[0][1], found[1][1])
    few = rows[:3]  # too few to be worth it
    assert_same(backbone.forward_alike(few).detach(), found[0][0][:3])


@pytest.mark.parametrize(
    ("ids", "common"),
    [
        ([[1, 2, 3, 4, 5, 6, 7, 8, n] for n in range(8)], 8),
        ([[1, 2, 3, 4, 5, 6, 7, 8, n] for n in range(7)], 0),  # of too few sequences
        ([[1, 2, 3, 4, 5, 6, 7, n, 8] for n in range(8)], 0),  # of too few tokens
        ([[1, 2, 3, 4, 5, 6, 7, 8]] + [[1, 2, 3, 4, 5, 6, 7, 8, n] for n in range(8)], 0),  # one would have none left
        ([[1] * 12] * 9, 11),
        ([], 0),
    ],
)
def test_common_start(ids: list[list[int]], common: int) -> None:
    assert common_start(ids) == common


def test_a_prefix_is_not_used_up(backbone: Backbone) -> None:
    [document], queries = sequences((WINDOW + 1,), 1), sequences((3, 8), 2)
    prefix = backbone.prefixes([document])[0]
    first = backbone.last_states_after([prefix, prefix], queries)
    again = backbone.last_states_after([prefix, prefix], queries)
    assert torch.equal(first, again)
    assert prefix.length == len(document)
    assert prefix.nbytes >= 2 * 4 * len(document)


def test_a_prefix_owns_no_more_memory_than_it_says(tiny_backbone: Load) -> None:
    """A view into the batch's cache would keep all of the batch in memory."""
    short, _ = tiny_backbone("llama").prefixes(sequences((2, 40), 1))
    assert short.states.untyped_storage().nbytes() == short.states.nbytes


def test_two_rows_of_the_head_are_the_whole_head(backbone: Backbone) -> None:
    """With the family's bias and scale; a soft-cap only bends what both sides agree on."""
    ids = sequences((7, 20), 7)
    states = one_by_one(backbone, ids)
    full = backbone.full_logits(states)
    rows = backbone.answer_rows(true_id=33, false_id=214)
    assert_same(rows.logits(states), full[:, [33, 214]])
    assert_same(states @ rows.direction + rows.offset, full[:, 33] - full[:, 214])
    cap = getattr(backbone.model.config, "final_logit_softcapping", None)
    capped = full if cap is None else cap * torch.tanh(full / cap)
    with torch.inference_mode():
        expected = torch.stack([backbone.model(input_ids=torch.tensor([i])).logits[0, -1] for i in ids])
    assert_same(capped, expected)


def test_the_families_cover_a_bias_a_scale_and_a_cap(tiny_backbone: Load) -> None:
    assert tiny_backbone("phi").answer_rows(5, 6).offset != 0
    assert tiny_backbone("cohere").answer_rows(5, 6).scale == 0.25
    assert tiny_backbone("granite").answer_rows(5, 6).scale == 0.25
    assert tiny_backbone("llama").answer_rows(5, 6).scale == 1
    assert tiny_backbone("gemma2").model.config.final_logit_softcapping == 5.0


def test_layers_lead_from_the_embeddings_to_the_head(backbone: Backbone) -> None:
    assert len(backbone.layers) == 3
    assert backbone.hidden_size == 32
    assert backbone.positions == 2048
    assert backbone.dtype == torch.float32


def test_forward_last_carries_gradients(tiny_backbone: Load) -> None:
    backbone = tiny_backbone("llama")
    states = backbone.forward_last(**backbone.pad(sequences((3, 5), 1)))
    assert states.requires_grad


@pytest.mark.parametrize("budget", [1, 7, 20])
def test_token_batches_keep_order_and_budget(budget: int) -> None:
    lengths = [4, 9, 1, 1, 6, 30, 2]
    batches = list(token_batches(lengths, budget))
    assert [row for batch in batches for row in batch] == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= budget
    assert list(token_batches([], budget)) == []


def test_dtype_is_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "cores": 2}, raising=False)
    assert choose_dtype("auto", "cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype("auto", "cpu") == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as before torch 2.12
    for there, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        assert choose_dtype("auto", "cpu") == wanted
    assert choose_dtype("bfloat16", "cpu") == torch.bfloat16


def test_few_kernels_are_kept_unless_the_environment_says_otherwise(
    tiny_backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    model = tiny_backbone("llama")
    for before, after in ((None, "64"), ("7", "7")):
        if before:
            monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", before)
        Backbone(model.model, model.tokenizer)
        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == after


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="does not load as a causal language model"):
        Backbone.load(tmp_path)


@pytest.fixture
def recurrent(tiny_backbone: Load) -> Backbone:
    config = transformers.MambaConfig(vocab_size=380, hidden_size=16, num_hidden_layers=2, state_size=4)
    return Backbone(transformers.MambaForCausalLM(config).eval(), tiny_backbone("llama").tokenizer)


def test_a_recurrent_model_is_refused_for_prefixes(recurrent: Backbone) -> None:
    """No keys and values per token, no prefix to keep: said in words, not found out by wrong scores."""
    with pytest.raises(InputError, match="keys and values"):
        recurrent.prefixes([[5, 6, 7]])


def test_a_recurrent_model_reads_texts_that_start_alike(recurrent: Backbone) -> None:
    rows = [[5] * 20 + own for own in sequences((2,) * 9, 4)]
    assert_same(recurrent.last_states(rows), torch.cat([recurrent.last_states([row]) for row in rows]))

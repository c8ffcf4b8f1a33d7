"""What is written after a document's prefix is what the whole text alone would lead to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rabtriever import Reranker
from rabtriever.backbone import Backbone
from rabtriever.generation import write_on
from tiny_models import FAMILIES
from toy_data import SHORT


@torch.inference_mode()
def _greedy(backbone: Backbone, ids: list[int], most: int) -> list[int]:
    """Token by token, the whole text read anew each time."""
    written: list[int] = []
    while len(written) < most:
        logits = backbone.full_logits(backbone.last_states([ids + written]))
        token = int(torch.argmax(logits[0]))
        if token == backbone.tokenizer.eos_token_id:
            break
        written.append(token)
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prefix_stands_for_the_document(family: str, tiny_folder: Callable[..., Path]) -> None:
    model = Reranker.from_pretrained(tiny_folder(family), prompt=SHORT, dtype="float32")
    document, query = model.prompt.document_ids("take the sponge"), model.prompt.query_ids("I spilled my coke")
    (prefix,) = model.read(["take the sponge"])
    kept = prefix.states.clone()
    found = write_on(model.backbone, prefix, query, 8)
    assert found == _greedy(model.backbone, document + query, 8)
    assert torch.equal(prefix.states, kept)  # for the next query
    assert write_on(model.backbone, prefix, query, 3) == found[:3]


def test_it_ends_at_the_end_of_text(tiny_folder: Callable[..., Path]) -> None:
    model = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    (prefix,) = model.read(["take the sponge"])
    query = model.prompt.query_ids("I spilled my coke")
    found = write_on(model.backbone, prefix, query, 8)
    model.backbone.model.generation_config.eos_token_id = found[4]
    assert write_on(model.backbone, prefix, query, 8) == found[: found.index(found[4])]

"""Bulk encoding of documents, and one query: the student in torch, compiled, and by sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from measuring import Ceilings, interleaved
from models import Models


def bulk(models: Models, texts: Sequence[str], repeats: int, ceilings: Ceilings) -> dict[str, Any]:
    """Documents of mixed length; FLOP count real tokens alone, and of these the linear maps alone."""
    prompt, peer = models.student.reranker.prompt, models.sentence_transformer
    tokens = sum(len(prompt.document_ids(text)) for text in texts)
    work = {
        "rabtriever": lambda: models.student.encode_document(texts),
        "rabtriever, compiled": lambda: models.compiled.encode_document(texts),
        "sentence-transformers": lambda: peer.encode_document(list(texts), batch_size=32, show_progress_bar=False),
    }
    seconds = interleaved(work, repeats, ceilings)
    least = ceilings.limit(models.number, tokens)
    rows = {
        name: {
            "tokens_per_second": tokens / spent,
            "share_of_limit": least / spent,
            "times_sentence_transformers": seconds["sentence-transformers"] / spent,
        }
        for name, spent in seconds.items()
    }
    return {"texts": len(texts), "tokens": tokens, "dtype": models.number, "systems": rows}


def one_query(models: Models, texts: Sequence[str], repeats: int, ceilings: Ceilings) -> dict[str, Any]:
    """A query at a time, from its text to its vector; plain transformers gets its ids, and gives every logit.

    Beside them stand the model's matrix products alone, in torch, over as many rows as the query has tokens: so few
    do not reach the speed of the limit, which was measured over many.
    """
    prompt, model = models.student.reranker.prompt, models.student.reranker.backbone.model
    ids = [torch.tensor([prompt.query_ids(text)]) for text in texts]
    tokens = sum(row.shape[1] for row in ids) / len(ids)

    @torch.inference_mode()
    def plain() -> None:
        for row in ids:
            model(input_ids=row)

    products = [_products(model, row.shape[1]) for row in ids]
    work = {
        "rabtriever": lambda: [models.student.encode_query([text]) for text in texts],
        "rabtriever, compiled": lambda: [models.compiled.encode_query([text]) for text in texts],
        "plain transformers": plain,
        "matrix products alone": lambda: [product() for product in products],
    }
    seconds = interleaved(work, repeats, ceilings)
    least = ceilings.limit(models.number, round(tokens))
    rows = {
        name: {
            "milliseconds": 1000 * spent / len(texts),
            "times_limit": spent / len(texts) / least,
            "share_of_plain": spent / seconds["plain transformers"],
        }
        for name, spent in seconds.items()
    }
    return {"queries": len(texts), "tokens_each": tokens, "dtype": models.number, "systems": rows}


def _products(model: torch.nn.Module, rows: int) -> Callable[[], None]:
    """All linear maps of a model's blocks, one after the other, on rows that are at hand."""
    maps = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {m.in_features: torch.randn(rows, m.in_features).to(m.weight.dtype) for m in maps}

    @torch.inference_mode()
    def run() -> None:
        for linear in maps:
            linear(inputs[linear.in_features])

    return run


def agreement(models: Models, texts: Sequence[str]) -> dict[str, Any]:
    """How far the compiled student's vectors are from the student's: the cosine of the worst pair, of each kind."""
    return {
        "texts": len(texts),
        "dtype": models.number,
        "systems": {
            what: {"worst_cosine": _worst_cosine(encode(texts), reference(texts))}
            for what, encode, reference in (
                ("documents", models.compiled.encode_document, models.student.encode_document),
                ("queries", models.compiled.encode_query, models.student.encode_query),
            )
        },
    }


def _worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.sum(a * b, 1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())

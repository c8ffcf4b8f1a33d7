"""The teacher over the documents of one query: cached prefixes against the plain loop over the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from measuring import interleaved
from models import Models

_BATCH = 32


def rerank(models: Models, queries: Sequence[str], documents: Sequence[str], repeats: int) -> dict[str, Any]:
    """Score all documents for one query, by documents that were read before and by documents that were not.

    Each repetition asks another query, so that nothing but the documents can have been kept.
    """
    teacher, peer = models.student.reranker, models.cross_encoder
    asked = {name: iter(queries * 3) for name in ("plain", "peer", "cold", "warm")}

    def cold() -> None:
        teacher.forget()
        teacher.score(next(asked["cold"]), documents)

    def pairs(name: str) -> list[tuple[str, str]]:
        query = next(asked[name])
        return [(query, document) for document in documents]

    work = {
        "rabtriever, documents new": cold,
        "rabtriever, documents read before": lambda: teacher.score(next(asked["warm"]), documents),
        "plain transformers loop": lambda: plain(models, next(asked["plain"]), documents),
        "sentence-transformers CrossEncoder": lambda: peer.predict(pairs("peer"), batch_size=_BATCH),
    }
    seconds = interleaved(work, repeats)
    prompt = teacher.prompt
    lengths = [len(prompt.document_ids(text)) for text in documents]
    found = teacher.score(queries[0], documents)
    expected = plain(models, queries[0], documents)
    return {
        "documents": len(documents),
        "tokens_a_document": float(np.mean(lengths)),
        "tokens_a_query": float(np.mean([len(prompt.query_ids(query)) for query in queries])),
        "dtype": models.number,
        "largest_difference": float(np.abs(found - expected).max()),
        "systems": {
            name: {"seconds": spent, "times_plain": seconds["plain transformers loop"] / spent}
            for name, spent in seconds.items()
        },
    }


@torch.inference_mode()
def plain(models: Models, query: str, documents: Sequence[str]) -> np.ndarray:
    """What one writes first: batches in the order given, padded, and the logits of every position."""
    teacher = models.student.reranker
    backbone, prompt = teacher.backbone, teacher.prompt
    scores = []
    for start in range(0, len(documents), _BATCH):
        rows = [prompt.document_ids(text) + prompt.query_ids(query) for text in documents[start : start + _BATCH]]
        batch = backbone.pad(rows)
        logits = backbone.model(**batch).logits
        last = batch["attention_mask"].sum(1) - 1
        answers = logits[torch.arange(len(rows)), last].float()
        scores.append((answers[:, prompt.true_id] - answers[:, prompt.false_id]).cpu().numpy())
    return np.concatenate(scores)

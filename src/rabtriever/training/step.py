"""One step of stage I: pairs in token-budget batches, the loss at the answer position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.backbone import Backbone
from rabtriever.losses import answer_cross_entropy, dpo_loss
from rabtriever.numerics import token_batches

if TYPE_CHECKING:
    from rabtriever.training.config import TeacherConfig

__all__ = ["answer_losses"]


def answer_losses(
    backbone: Backbone,
    ids: Sequence[Sequence[int]],
    right: Tensor,
    answers: tuple[int, int],
    config: TeacherConfig,
    reference: Backbone | None,
) -> Iterator[Tensor]:
    """Losses whose sum is the mean over all pairs, a token-budget batch at a time, for a backward pass each.

    Args:
        backbone: The model in training.
        ids: Document and query ids of each pair, joined.
        right: Which pairs are right, ``(n,)`` bool.
        answers: The ids of ``<T>`` and ``<F>``.
        config: The objective and the batch budget.
        reference: The model before training, for DPO.

    Yields:
        Scalars with gradients.
    """
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for batch in token_batches([len(ids[row]) for row in order], config.batch_tokens):
        rows = [order[i] for i in batch]
        inputs = backbone.pad([ids[row] for row in rows])
        labels = right[rows]
        logits = backbone.full_logits(backbone.forward_last(**inputs))
        labels = labels.to(logits.device)
        if reference is None:
            loss = answer_cross_entropy(logits, labels, *answers)
        else:
            with torch.no_grad():
                before = reference.full_logits(reference.forward_last(**inputs))
            loss = dpo_loss(logits[:, answers], before[:, answers], labels, beta=config.dpo_beta)
        yield loss * (len(rows) / len(ids))

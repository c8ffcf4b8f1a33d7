"""One step of stage I: pairs in token-budget batches, the loss at the answer position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.backbone import Backbone
from rabtriever.losses import answer_cross_entropy, dpo_loss, log_odds, ranking_cross_entropy

if TYPE_CHECKING:
    from rabtriever.training.config import TeacherConfig

__all__ = ["answer_losses"]


def answer_losses(
    backbone: Backbone,
    ids: Sequence[Sequence[int]],
    right: Tensor,
    groups: Sequence[int],
    answers: tuple[int, int],
    config: TeacherConfig,
    reference: Backbone | None,
) -> Iterator[Tensor]:
    """Losses that sum to the step's, a token-budget batch at a time, for a backward pass each.

    The step's loss is the mean of the answer's loss over all pairs, plus ``ranking_weight`` times the mean of the
    ranking's over all right pairs.

    Args:
        backbone: The model in training.
        ids: Document and query ids of each pair, joined.
        right: Which pairs are right, ``(n,)`` bool.
        groups: Which query each pair belongs to, ``n`` numbers.
        answers: The ids of ``<T>`` and ``<F>``.
        config: The objective and the batch budget.
        reference: The model before training, for DPO.

    Yields:
        Scalars with gradients.
    """
    for rows in _batches(ids, groups if config.ranking_weight else range(len(ids)), config.batch_tokens):
        inputs = backbone.pad([ids[row] for row in rows])
        logits = backbone.full_logits(backbone.forward_last(**inputs))
        labels = right[rows].to(logits.device)
        if reference is None:
            loss = answer_cross_entropy(logits, labels, *answers)
        else:
            with torch.no_grad():
                before = reference.full_logits(reference.forward_last(**inputs))
            loss = dpo_loss(logits[:, answers], before[:, answers], labels, beta=config.dpo_beta)
        loss = loss * (len(rows) / len(ids))
        if config.ranking_weight and bool(labels.any()):
            owner = torch.tensor([groups[row] for row in rows], device=logits.device)
            ranking = ranking_cross_entropy(log_odds(logits[:, answers]), labels, owner)
            loss = loss + config.ranking_weight * ranking * (labels.sum() / right.sum())
        yield loss


def _batches(ids: Sequence[Sequence[int]], groups: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows that go through the model at once: whole groups, longest first, within the budget where a group fits it."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    longest = {group: max(len(ids[row]) for row in rows) for group, rows in members.items()}
    batch: list[int] = []
    for group in sorted(members, key=lambda group: -longest[group]):
        if batch and len(ids[batch[0]]) * (len(batch) + len(members[group])) > budget:
            yield batch
            batch = []
        batch += sorted(members[group], key=lambda row: -len(ids[row]))
    if batch:
        yield batch

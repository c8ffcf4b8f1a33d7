"""One step of stage I: the answer's loss over pairs, and the loss of queries and documents read apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rabtriever.backbone import Backbone
from rabtriever.batches import token_batches
from rabtriever.losses import answer_cross_entropy, dpo_loss, label_cross_entropy, log_odds, ranking_cross_entropy
from rabtriever.training.processes import Processes

if TYPE_CHECKING:
    from rabtriever.prompt import Prompt
    from rabtriever.training.config import TeacherConfig
    from rabtriever.training.plan import Plan

__all__ = ["Step", "answer_losses", "apart_loss", "step_losses"]

_SCALE = 20.0
"""Inverse temperature of the cosine, as bi-encoders are trained with."""
_ALONE = Processes()


@dataclass(frozen=True, slots=True)
class Step:
    """What the model reads in one step.

    Attributes:
        pairs: Ids of each pair, document and query joined.
        right: Which pairs are right, ``(n,)`` bool.
        groups: Which query each pair belongs to, ``n`` numbers.
        queries: Ids of each query alone.
        documents: Ids of each document alone.
        matches: Which of these documents are right for which of these queries, ``(q, d)`` bool.
    """

    pairs: list[list[int]]
    right: Tensor
    groups: list[int]
    queries: list[list[int]]
    documents: list[list[int]]
    matches: Tensor

    @classmethod
    def read(cls, prompt: Prompt, plan: Plan, number: int) -> Step:
        """The step of a plan with this number, from 0."""
        pairs, apart = plan.step(number), plan.apart(number)
        queries = {text: prompt.query_ids(text) for text in apart.queries}
        documents = {text: prompt.document_ids(text) for text in apart.documents}
        return cls(
            [documents[pair.document] + queries[pair.query] for pair in pairs],
            torch.tensor([pair.right for pair in pairs]),
            [pair.group for pair in pairs],
            [queries[text] for text in apart.queries],
            [documents[text] for text in apart.documents],
            torch.tensor(apart.right),
        )

    @property
    def tokens(self) -> int:
        """Tokens of all pairs."""
        return sum(map(len, self.pairs))

    @property
    def apart_tokens(self) -> int:
        """Tokens of all queries and documents read apart."""
        return sum(map(len, (*self.queries, *self.documents)))


def step_losses(
    backbone: Backbone,
    step: Step,
    answers: tuple[int, int],
    config: TeacherConfig,
    reference: Backbone | None,
    processes: Processes = _ALONE,
) -> Iterator[Tensor]:
    """Losses of this process's share that sum, over all processes, to the step's, for a backward pass each.

    Args:
        backbone: The model in training.
        step: What it reads.
        answers: The ids of ``<T>`` and ``<F>``.
        config: The objective, its weights and the batch budget.
        reference: The model before training, for DPO.
        processes: Those that share the step.
    """
    yield from answer_losses(backbone, step.pairs, step.right, step.groups, answers, config, reference, processes)
    if config.apart_weight and (own := processes.share(range(len(step.queries)))):
        queries = [step.queries[row] for row in own]
        share = len(own) / len(step.queries)
        matches = step.matches[list(own)]
        yield config.apart_weight * share * apart_loss(backbone, queries, step.documents, matches, config.batch_tokens)


def apart_loss(
    backbone: Backbone,
    queries: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    right: Tensor,
    batch_tokens: int,
) -> Tensor:
    """How far the states of queries are from those of their right documents: InfoNCE on the cosine of e_Q and e_D.

    Args:
        backbone: The model in training.
        queries: Ids of each query alone.
        documents: Ids of each document alone.
        right: Which documents are right for which query, ``(m, n)`` bool.
        batch_tokens: Padded tokens that go through the model at once, forward and backward.

    Returns:
        A scalar with a gradient.
    """
    e_q, e_d = (
        torch.nn.functional.normalize(_states(backbone, ids, batch_tokens).float(), dim=1)
        for ids in (queries, documents)
    )
    return label_cross_entropy(_SCALE * e_q @ e_d.T, right.to(e_q.device))


def _states(backbone: Backbone, ids: Sequence[Sequence[int]], batch_tokens: int) -> Tensor:
    """The last state of each text, ``(n, d)``; what exceeds one batch is read again in the backward pass.

    Every query is compared with every document, so that no batch can be gone through backwards before all are read;
    to keep what all of them need for it would take as much memory as there are texts.
    """
    batches = list(token_batches([len(text) for text in ids], batch_tokens))
    if len(batches) == 1:
        return backbone.forward_alike(ids)

    def read(rows: list[int], _on: Tensor) -> Tensor:
        return backbone.forward_alike([ids[row] for row in rows])

    here = torch.empty(0, device=backbone.device)  # dropout is repeated on the devices of the arguments alone
    return torch.cat([checkpoint(read, rows, here, use_reentrant=False) for rows in batches])


def answer_losses(
    backbone: Backbone,
    ids: Sequence[Sequence[int]],
    right: Tensor,
    groups: Sequence[int],
    answers: tuple[int, int],
    config: TeacherConfig,
    reference: Backbone | None,
    processes: Processes = _ALONE,
) -> Iterator[Tensor]:
    """Losses of this process's share of the pairs, a token-budget batch at a time, for a backward pass each.

    Their sum over all processes is the mean of the answer's loss over all pairs, plus ``ranking_weight`` times the mean
    of the ranking's over all right pairs.

    Args:
        backbone: The model in training.
        ids: Document and query ids of each pair, joined.
        right: Which pairs are right, ``(n,)`` bool.
        groups: Which query each pair belongs to, ``n`` numbers.
        answers: The ids of ``<T>`` and ``<F>``.
        config: The objective and the batch budget.
        reference: The model before training, for DPO.
        processes: Those that share the pairs.

    Yields:
        Scalars with gradients.
    """
    for rows in _batches(ids, groups if config.ranking_weight else range(len(ids)), config.batch_tokens, processes):
        batch = [ids[row] for row in rows]
        logits = backbone.full_logits(backbone.forward_alike(batch))
        labels = right[rows].to(logits.device)
        if reference is None:
            loss = answer_cross_entropy(logits, labels, *answers)
        else:
            with torch.no_grad():
                before = reference.full_logits(reference.forward_alike(batch))
            loss = dpo_loss(logits[:, answers], before[:, answers], labels, beta=config.dpo_beta)
        loss = loss * (len(rows) / len(ids))
        if config.ranking_weight and bool(labels.any()):
            owner = torch.tensor([groups[row] for row in rows], device=logits.device)
            ranking = ranking_cross_entropy(log_odds(logits[:, answers]), labels, owner)
            loss = loss + config.ranking_weight * ranking * (labels.sum() / right.sum())
        yield loss


def _batches(
    ids: Sequence[Sequence[int]], groups: Sequence[int], budget: int, processes: Processes
) -> Iterator[list[int]]:
    """Rows that go through the model at once: whole groups, longest first, within the budget where a group fits it."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    longest = {group: max(len(ids[row]) for row in rows) for group, rows in members.items()}
    batch: list[int] = []
    for group in processes.share(sorted(members, key=lambda group: -longest[group])):
        if batch and len(ids[batch[0]]) * (len(batch) + len(members[group])) > budget:
            yield batch
            batch = []
        batch += sorted(members[group], key=lambda row: -len(ids[row]))
    if batch:
        yield batch

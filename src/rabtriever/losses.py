"""The losses of both stages as pure functions: Eq. 13 for the student, cross-entropy and DPO for the teacher.

Two-row logits are always ordered `[z_T, z_F]`. Every function computes in float32 whatever it is given.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "DistillationLoss",
    "answer_cross_entropy",
    "distillation_loss",
    "dpo_loss",
    "effective_rank",
    "embedding_loss",
    "forward_kl",
    "label_cross_entropy",
    "log_odds",
    "paper_relevance",
    "ranking_cross_entropy",
    "ranking_divergence",
    "reverse_kl",
]


_ABSENT = -1e4
"""The score of a document that a query does not have: its probability is 0, and no infinity takes part."""


class DistillationLoss(NamedTuple):
    """Eq. 13 and its two terms, unweighted; each a scalar tensor."""

    total: Tensor
    mse: Tensor
    kl: Tensor


def embedding_loss(student: Tensor, teacher: Tensor, scale: Tensor | None = None) -> Tensor:
    """Eq. 13, first term: the mean squared error between the predicted and the teacher's hidden states.

    In raw units a few huge hidden dimensions are nearly all of it; `scale` gives every dimension the same say.

    Args:
        student: (b, d) `e_student`.
        teacher: (b, d) `e_teacher`.
        scale: (d,) positive, by which both are divided: the teacher's standard deviation per dimension.

    Returns:
        A scalar, the mean over pairs and dimensions.

    Example:
        >>> embedding_loss(torch.tensor([[1.0, 6.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([1.0, 2.0])).item()
        2.5
    """
    student, teacher = student.float(), teacher.float()
    if scale is not None:
        # Two products and one fused loss: half the passes over memory of a difference that is divided and squared.
        inverse = scale.float().reciprocal()
        student, teacher = student * inverse, teacher * inverse
    return F.mse_loss(student, teacher)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Eq. 13, second term: `KL(P_student || P_teacher)`, exact over the answer position.

    Args:
        student_logits: (b, v), `v` = 2 answer rows or the whole vocabulary.
        teacher_logits: (b, v).

    Returns:
        A scalar, the mean over the pairs, in nats.

    Example:
        >>> reverse_kl(torch.zeros(1, 2), torch.zeros(1, 2)).item()
        0.0
    """
    student = F.log_softmax(student_logits.float(), dim=-1)
    teacher = F.log_softmax(teacher_logits.float(), dim=-1)
    return (student.exp() * (student - teacher)).sum(-1).mean()


def forward_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The ablation of Eq. 13: `KL(P_teacher || P_student)`. Shapes as for `reverse_kl`.

    Example:
        >>> forward_kl(torch.zeros(1, 2), torch.zeros(1, 2)).item()
        0.0
    """
    return reverse_kl(teacher_logits, student_logits)


def distillation_loss(
    student_e: Tensor,
    teacher_e: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    mse_weight: float = 1.0,
    kl_weight: float = 0.25,
    kl: Literal["reverse", "forward"] = "reverse",
    scale: Tensor | None = None,
) -> DistillationLoss:
    """Eq. 13: `mse_weight * MSE(e_student, e_teacher) + kl_weight * KL(P_student || P_teacher)`.

    A weight of zero is the paper's "no MSE" or "no KL": that term is still reported, but gives no gradient.

    Args:
        student_e: (b, d) `e_student`.
        teacher_e: (b, d) `e_teacher`.
        student_logits: (b, v), the head on `student_e`.
        teacher_logits: (b, v).
        mse_weight: Weight of the first term.
        kl_weight: Weight of the second term, the paper's `w`.
        kl: Direction of the second term; "forward" is the paper's ablation.
        scale: (d,) see `embedding_loss`.

    Example:
        >>> e, z = torch.ones(2, 4), torch.zeros(2, 2)
        >>> distillation_loss(e, e, z, z).total.item()
        0.0
    """
    mse = embedding_loss(student_e, teacher_e, scale)
    divergence = (reverse_kl if kl == "reverse" else forward_kl)(student_logits, teacher_logits)
    # Left out rather than multiplied by zero: zero times an overflowing term would be NaN.
    terms = [weight * term for weight, term in ((mse_weight, mse), (kl_weight, divergence)) if weight]
    total = torch.stack(terms).sum() if terms else torch.zeros_like(mse)
    return DistillationLoss(total, mse.detach(), divergence.detach())


def ranking_divergence(
    student: Tensor, teacher: Tensor, owner: Tensor, kl: Literal["reverse", "forward"] = "reverse"
) -> Tensor:
    """How differently student and teacher rank: the divergence of their softmaxes over each query's documents.

    The divergence of Eq. 13 looks at one pair at a time, and is small wherever both are sure of "F", that is, for most
    documents; this one compares a query's documents with each other, whatever the level of their scores.

    Args:
        student: (b,) log-odds.
        teacher: (b,) log-odds.
        owner: (b,) int, the query that each pair belongs to, in ascending order.
        kl: Direction; "reverse" has the student first.

    Returns:
        A scalar, the mean over the queries, in nats.

    Example:
        >>> scores = torch.tensor([1.0, 3.0, 0.0])
        >>> ranking_divergence(scores, scores + 5, torch.tensor([0, 0, 1])).item()
        0.0
    """
    counts = torch.bincount(owner)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]

    def table(scores: Tensor) -> Tensor:
        absent = scores.new_full((len(counts), int(counts.max())), _ABSENT, dtype=torch.float32)
        return absent.index_put((owner, place), scores.float())

    return (reverse_kl if kl == "reverse" else forward_kl)(table(student), table(teacher))


def label_cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    """How far the labelled documents are from the top: cross-entropy of each query's softmax over many documents.

    Args:
        scores: (m, n) log-odds of every query with every document.
        right: (m, n) bool, what is labelled relevant; a query without any counts for nothing.

    Returns:
        A scalar, the mean over the queries that have a label, in nats; 0 where none has.

    Example:
        >>> scores = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
        >>> label_cross_entropy(scores, torch.tensor([[True, False], [False, False]])).item() < 1e-3
        True
    """
    labelled = right.any(1)
    if not bool(labelled.any()):
        return (scores * 0.0).sum()  # with a gradient, in case nothing else has one
    wanted = right[labelled].float()
    log_shares = torch.log_softmax(scores[labelled].float(), dim=1)
    return -(wanted * log_shares).sum(1).div(wanted.sum(1)).mean()


def answer_cross_entropy(logits: Tensor, is_true: Tensor, true_id: int, false_id: int) -> Tensor:
    """Stage I's supervised loss: cross-entropy over the whole vocabulary, on the answer token alone.

    Args:
        logits: (b, V) at the answer position.
        is_true: (b,) bool, whether the pair's document is relevant.
        true_id: The token id of the answer "T".
        false_id: The token id of the answer "F".

    Returns:
        A scalar, the mean over the pairs.

    Example:
        >>> round(answer_cross_entropy(torch.zeros(1, 4), torch.tensor([True]), 2, 3).item(), 4)  # log 4
        1.3863
    """
    target = torch.where(is_true.bool(), true_id, false_id)
    return F.cross_entropy(logits.float(), target)


def dpo_loss(policy_logits: Tensor, reference_logits: Tensor, is_true: Tensor, beta: float = 0.1) -> Tensor:
    """Stage I's second objective (LaHoRe): DPO on the pair (right answer, wrong answer).

    `-log sigmoid(beta * ((log pi_right - log pi_wrong) - (log ref_right - log ref_wrong)))`. In each difference of log
    probabilities the normaliser cancels, so the two answer rows suffice and the vocabulary is never computed.

    Args:
        policy_logits: (b, 2) `[z_T, z_F]` of the model in training.
        reference_logits: (b, 2) `[z_T, z_F]` of the frozen reference.
        is_true: (b,) bool, whether "T" is the right answer.
        beta: How strongly the policy is held to the reference.

    Returns:
        A scalar, the mean over the pairs.

    Example:
        >>> round(dpo_loss(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True])).item(), 4)  # log 2
        0.6931
    """
    margin = log_odds(policy_logits) - log_odds(reference_logits)
    return -F.logsigmoid(beta * torch.where(is_true.bool(), margin, -margin)).mean()


def ranking_cross_entropy(scores: Tensor, is_true: Tensor, group: Tensor) -> Tensor:
    """Stage I's ranking term: each right document against the wrong ones of its query, in one softmax.

    Cross-entropy on the answer alone must first learn how often the answer is "T" at all; this term is blind to that
    level, which is the same for all documents of a query, and only asks which of them stands out.

    Args:
        scores: (b,) log-odds.
        is_true: (b,) bool, whether the pair's document is relevant; at least one is.
        group: (b,) int, the query that the pair belongs to.

    Returns:
        A scalar, the mean over the right pairs.

    Example:
        >>> right, group = torch.tensor([True, False, False, False]), torch.zeros(4, dtype=torch.long)
        >>> round(ranking_cross_entropy(torch.zeros(4), right, group).item(), 4)  # log 4
        1.3863
    """
    right, scores = is_true.bool(), scores.float()
    rivals = (group[right][:, None] == group[None]) & ~right[None]
    own = scores[right]
    others = scores.expand(len(own), -1).masked_fill(~rivals, -torch.inf)
    return (torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own).mean()


def log_odds(logits: Tensor) -> Tensor:
    """The canonical score `log P(T) - log P(F) = z_T - z_F`: (..., 2) -> (...).

    Its sigmoid is the calibrated relevance `P(T) / (P(T) + P(F))`.

    Example:
        >>> log_odds(torch.tensor([[2.0, -1.0]])).tolist()
        [3.0]
    """
    return logits[..., 0].float() - logits[..., 1].float()


def paper_relevance(log_p_true: Tensor, log_p_false: Tensor) -> Tensor:
    """Eq. 9 as printed: `log P(T) / (log P(T) + log P(F))`.

    Mind its sense: it *falls* as P(T) rises (P(T) -> 1 gives 0), so that the most relevant document scores lowest.
    Rank by `log_odds`; this is here only to compare with the paper.

    Args:
        log_p_true: (...) log-probability of "T".
        log_p_false: (...) log-probability of "F".

    Example:
        >>> probability = torch.tensor([0.9, 0.1])
        >>> [round(s, 3) for s in paper_relevance(probability.log(), (1 - probability).log()).tolist()]
        [0.044, 0.956]
    """
    return log_p_true / (log_p_true + log_p_false)


def effective_rank(x: Tensor) -> float:
    """How many directions the rows of `x` (n, d) really use: a collapse monitor.

    The exponential of the entropy of the normalised singular values of the centred rows (Roy and Vetterli, 2007):
    between 1 (all variation along one line) and `min(n - 1, d)`; 0 if the rows are all the same.

    Example:
        >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 3)
        2.0
    """
    rows = x.detach().double()
    values = torch.linalg.svdvals(rows - rows.mean(0)) if rows.shape[0] > 1 else rows.new_zeros(1)
    # Rows are float32 at best: a spread below their rounding is no spread.
    if float(values.sum()) <= 1e-6 * float(rows.norm()):
        return 0.0
    weights = values / values.sum()
    return float(torch.special.entr(weights).sum().exp())

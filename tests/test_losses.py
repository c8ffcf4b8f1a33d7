"""Eq. 13 and stage I's losses, by algebra."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rabtriever.losses import (
    answer_cross_entropy,
    distillation_loss,
    dpo_loss,
    effective_rank,
    embedding_loss,
    forward_kl,
    label_cross_entropy,
    log_odds,
    paper_relevance,
    ranking_cross_entropy,
    ranking_divergence,
    reverse_kl,
)

logit = st.floats(-80, 80, width=32)
rows = st.lists(st.tuples(logit, logit), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(logit, logit, logit, logit), min_size=1, max_size=5))
def test_kl_is_never_negative_and_its_gradient_finite(values: list[tuple[float, ...]]) -> None:
    z = torch.tensor(values)
    for kl in (reverse_kl, forward_kl):
        student = z[:, :2].clone().requires_grad_()
        loss = kl(student, z[:, 2:])
        loss.backward()
        assert float(loss.detach()) >= -1e-6
        assert student.grad is not None and torch.isfinite(student.grad).all()


@settings(max_examples=25, deadline=None)
@given(rows, st.floats(-50, 50, width=32))
def test_kl_is_zero_for_equal_distributions(values: list[tuple[float, float]], shift: float) -> None:
    z = torch.tensor(values)
    for kl in (reverse_kl, forward_kl):
        assert float(kl(z, z)) == 0.0
        assert float(kl(z, z + shift)) == pytest.approx(0.0, abs=1e-3)  # a shift of the logits changes nothing


def test_kl_is_positive_for_different_distributions() -> None:
    for kl in (reverse_kl, forward_kl):
        assert float(kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 0.0]]))) > 0.01


def test_kl_over_two_rows_is_the_closed_form() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 2, dtype=torch.double), 3 * torch.randn(6, 2, dtype=torch.double)
    p, q = torch.sigmoid(student[:, 0] - student[:, 1]), torch.sigmoid(teacher[:, 0] - teacher[:, 1])
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(reverse_kl(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    assert float(forward_kl(student, teacher)) == pytest.approx(float(reverse_kl(teacher, student)))
    vocabulary = torch.randn(4, 9), torch.randn(4, 9)
    reference = F.kl_div(vocabulary[1].log_softmax(-1), vocabulary[0].softmax(-1), reduction="batchmean")
    assert float(reverse_kl(*vocabulary)) == pytest.approx(float(reference), rel=1e-5)


def test_reverse_kl_saturates_where_the_student_is_wrongly_sure() -> None:
    """Why the predictor's last layer starts at zero."""
    gradients = []
    for start in (0.0, 20.0):
        student = torch.tensor([[start, 0.0]], requires_grad=True)
        reverse_kl(student, torch.tensor([[-3.0, 0.0]])).backward()
        assert student.grad is not None
        gradients.append(float(student.grad.abs().max()))
    assert gradients[0] > 0.5
    assert gradients[1] < 1e-5


def test_embedding_loss() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    assert float(embedding_loss(student, teacher)) == pytest.approx(float(F.mse_loss(student, teacher)))
    scale = torch.tensor([1.0, 100.0, 0.5, 2.0])
    expected = F.mse_loss(student / scale, teacher / scale)
    assert float(embedding_loss(student, teacher, scale)) == pytest.approx(float(expected))
    assert float(embedding_loss(student * 7, teacher * 7, scale * 7)) == pytest.approx(float(expected), rel=1e-5)
    assert embedding_loss(student.half(), teacher.half()).dtype == torch.float32


def test_distillation_loss_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    e, z = (torch.randn(5, 4), torch.randn(5, 4)), (torch.randn(5, 2), torch.randn(5, 2))
    loss = distillation_loss(*e, *z, mse_weight=2.0, kl_weight=3.0, kl="forward", scale=torch.full((4,), 2.0))
    mse, kl = float(embedding_loss(*e)) / 4, float(forward_kl(*z))
    assert (float(loss.mse), float(loss.kl)) == pytest.approx((mse, kl))
    assert float(loss.total) == pytest.approx(2 * mse + 3 * kl)
    assert float(distillation_loss(*e, *z).kl) == pytest.approx(float(reverse_kl(*z)))


def test_a_weight_of_zero_removes_a_term_even_when_it_overflows() -> None:
    e = torch.full((2, 4), 1e30, requires_grad=True)
    z = torch.zeros(2, 2, requires_grad=True)
    loss = distillation_loss(e, -e.detach(), z, torch.ones(2, 2) * torch.tensor([1.0, 0.0]), mse_weight=0.0)
    loss.total.backward()
    assert math.isinf(float(loss.mse)) and math.isfinite(float(loss.total))
    assert e.grad is None and z.grad is not None and z.grad.any()
    no_kl = distillation_loss(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2), kl_weight=0.0)
    assert float(no_kl.total) == float(no_kl.mse) == 1.0
    nothing = distillation_loss(e, e, z, z, mse_weight=0.0, kl_weight=0.0)
    assert float(nothing.total) == 0.0


def test_answer_cross_entropy_is_over_the_whole_vocabulary() -> None:
    logits = torch.randn(3, 7)
    is_true = torch.tensor([True, False, True])
    log_p = logits.log_softmax(-1)
    expected = -(log_p[0, 5] + log_p[1, 2] + log_p[2, 5]) / 3
    assert float(answer_cross_entropy(logits, is_true, 5, 2)) == pytest.approx(float(expected), rel=1e-5)
    assert float(answer_cross_entropy(logits + 9, is_true.long(), 5, 2)) == pytest.approx(float(expected), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(rows, st.floats(0.01, 2))
def test_dpo_at_the_reference_is_log_2(values: list[tuple[float, float]], beta: float) -> None:
    z = torch.tensor(values)
    is_true = torch.arange(len(values)) % 2 == 0
    assert float(dpo_loss(z, z, is_true, beta)) == pytest.approx(math.log(2))


def test_dpo_rewards_the_right_answer_and_ignores_the_normaliser() -> None:
    reference = torch.tensor([[0.3, -0.2]])
    better = reference + torch.tensor([[1.0, -1.0]])
    right, wrong = torch.tensor([True]), torch.tensor([False])
    assert float(dpo_loss(better, reference, right, 0.5)) == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))))
    assert float(dpo_loss(better, reference, right)) < math.log(2) < float(dpo_loss(better, reference, wrong))
    log_p = torch.randn(1, 9).log_softmax(-1)[:, :2]
    assert float(dpo_loss(log_p + 3, reference - 5, right)) == pytest.approx(float(dpo_loss(log_p, reference, right)))
    far = torch.tensor([[-80.0, 80.0]], requires_grad=True)
    dpo_loss(far, -far.detach(), right, 1.0).backward()
    assert far.grad is not None and torch.isfinite(far.grad).all() and far.grad.any()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_ranking_is_the_mean_of_each_right_document_against_its_own_querys_wrong_ones(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    scores = torch.tensor(data.draw(st.lists(logit, min_size=n, max_size=n)), requires_grad=True)
    right = [True, *data.draw(st.lists(st.booleans(), min_size=n - 1, max_size=n - 1))]
    group = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    loss = ranking_cross_entropy(scores, torch.tensor(right), torch.tensor(group))
    expected = []
    for i in (i for i in range(n) if right[i]):
        rivals = [j for j in range(n) if j == i or (group[j] == group[i] and not right[j])]
        expected.append(F.cross_entropy(scores[rivals][None], torch.tensor([rivals.index(i)])))
    assert float(loss.detach()) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5, abs=1e-5)
    loss.backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_ranking_ignores_the_level_of_a_query() -> None:
    scores, right = torch.randn(6), torch.tensor([True, False, False, True, True, False])
    group = torch.tensor([5, 5, 5, 7, 7, 7])
    level = torch.where(group == 5, 3.0, -8.0)
    before, after = (float(ranking_cross_entropy(x, right, group)) for x in (scores, scores + level))
    assert after == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("kl", ["reverse", "forward"])
def test_the_ranking_divergence_is_that_of_each_querys_softmax(kl: Any) -> None:
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    student, teacher = (4 * torch.randn(6)).requires_grad_(), 4 * torch.randn(6)
    expected = []
    for query in range(3):
        s, t = (x[owner == query].log_softmax(0) for x in (student, teacher))
        first, second = (s, t) if kl == "reverse" else (t, s)
        expected.append((first.exp() * (first - second)).sum())
    loss = ranking_divergence(student, teacher, owner, kl)
    assert float(loss.detach()) == pytest.approx(float(torch.stack(expected).mean().detach()), rel=1e-5)
    loss.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert student.grad[3] == 0  # a query's only document has no rival
    level = torch.tensor([7.0, 7.0, 7.0, -2.0, 90.0, 90.0])
    assert float(ranking_divergence(teacher + level, teacher, owner, kl)) == pytest.approx(0.0, abs=1e-5)


def test_scores() -> None:
    z = torch.tensor([[2.0, -1.0], [-3.0, 0.5]])
    log_p = z.log_softmax(-1)
    torch.testing.assert_close(log_odds(z), log_p[:, 0] - log_p[:, 1])
    torch.testing.assert_close(torch.sigmoid(log_odds(z)), z.softmax(-1)[:, 0])
    # Eq. 9 as printed runs the wrong way round.
    printed = paper_relevance(log_p[:, 0], log_p[:, 1])
    assert log_odds(z)[0] > log_odds(z)[1] and printed[0] < printed[1]


def test_labels_are_the_mean_of_each_right_documents_share_of_its_queries_softmax() -> None:
    scores = torch.randn(3, 5, requires_grad=True)
    right = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
    shares = torch.softmax(scores, 1).log()
    by_hand = -(shares[0, 0] + (shares[2, 1] + shares[2, 3]) / 2) / 2
    loss = label_cross_entropy(scores, right)
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)
    loss.backward()
    assert scores.grad is not None and float(scores.grad[1].abs().max()) == 0.0


def test_without_any_label_there_is_nothing_to_learn() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    loss = label_cross_entropy(scores, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert scores.grad is not None and float(scores.grad.abs().max()) == 0.0


def test_effective_rank() -> None:
    torch.manual_seed(0)
    assert effective_rank(torch.ones(5, 3) * 0.1) == 0.0
    assert effective_rank(torch.ones(1, 3)) == 0.0
    line = torch.randn(20, 1) * torch.randn(1, 6) + 50
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-2)
    cloud = torch.randn(400, 6)
    assert 5.8 < effective_rank(cloud) <= 6.0
    assert effective_rank(3 * cloud + 100) == pytest.approx(effective_rank(cloud), rel=1e-3)  # scale and place are free

"""What a student's predictions cost: the teacher's word on the pairs that it judged, and the labels' on the corpus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.losses import distillation_loss, label_cross_entropy, log_odds, ranking_divergence
from rabtriever.training.labels import MOST_DOCUMENTS

if TYPE_CHECKING:
    from rabtriever.predictor import Predictor
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import DistillConfig
    from rabtriever.training.pairs import Batch, PairSet

__all__ = ["StudentLoss"]


class StudentLoss:
    """Eq. 13 on each pair, a divergence over each query's pairs, and a softmax over the corpus for its labels.

    Args:
        teacher: Its answer rows (and head, for the divergence over the vocabulary) are used.
        pairs: What is learnt from.
        config: The weights of the terms.
        predictor: The student's.
        documents: The vectors of the documents at positions of the corpus, ``(n,) -> (n, k)``.
    """

    def __init__(
        self,
        teacher: Reranker,
        pairs: PairSet,
        config: DistillConfig,
        predictor: Predictor,
        documents: Callable[[Tensor], Tensor],
    ) -> None:
        self.teacher, self.pairs, self.config = teacher, pairs, config
        self.predictor, self.documents = predictor, documents
        self.scale = pairs.target_deviation() if config.normalize_target else None

    def __call__(
        self, queries: Tensor, predicted: Tensor, seed: int, predict: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum, and the terms that are in it: error, divergence, ranking and labels.

        Args:
            queries: Positions of the queries among those of the pairs, ``(b,)``.
            predicted: What the predictor makes of them, ``(b, k)``; once a query, however many pairs it has.
            seed: Draws the documents of a corpus that is too large for one softmax.
            predict: The same for other states of theirs: then the error is that at every position that there is.
        """
        label = self._label_loss(queries, predicted, seed)
        total = self.config.label_weight * label
        batch = self.pairs.batch(queries)
        if not len(batch.rows):  # labels alone teach these queries
            return total, torch.stack([*torch.zeros(3), label.detach()])
        taught, terms = self._teacher_loss(batch, predicted, predict)
        return total + taught, torch.stack([*terms, label.detach()])

    def _teacher_loss(
        self, batch: Batch, predicted: Tensor, predict: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """What the teacher says of the batch's pairs: the weighted sum, and the error, divergence and ranking in it."""
        target = self.pairs.outputs.states(batch.rows)
        documents = self.documents(batch.documents)
        student = self.predictor.combine(predicted[batch.owner], documents)
        ours, theirs = self.teacher.rows.logits(student), self.pairs.outputs.logits(batch.rows)
        ranking = ranking_divergence(log_odds(ours), log_odds(theirs), batch.owner, self.config.kl)
        if self.config.vocabulary:
            device = self.teacher.backbone.device
            ours = self.teacher.backbone.full_logits(student.to(device)).cpu()
            with torch.no_grad():
                theirs = self.teacher.backbone.full_logits(target.to(device)).cpu()
        if predict is not None and (at := batch.positions) is not None and self.pairs.positions is not None:
            everywhere = predict(self.pairs.positions.e_q[at.states])
            student = self.predictor.combine(everywhere[at.place], documents[at.pair])
            target = self.pairs.outputs.states(at.rows)
        loss = distillation_loss(
            student,
            target,
            ours,
            theirs,
            mse_weight=self.config.mse_weight,
            kl_weight=self.config.kl_weight,
            kl=self.config.kl,
            scale=self.scale,
        )
        total = loss.total + self.config.ranking_weight * ranking if self.config.ranking_weight else loss.total
        return total, torch.stack([loss.mse, loss.kl, ranking.detach()])

    def _label_loss(self, queries: Tensor, predicted: Tensor, seed: int) -> Tensor:
        """What the labels say of the whole corpus: one matrix product, since the student folds."""
        if not self.config.label_weight:
            return torch.zeros(())
        columns, right = self.pairs.labels.draw(queries, MOST_DOCUMENTS, seed)
        folded = self.predictor.fold_predicted(predicted, self.teacher.rows.direction)
        return label_cross_entropy(folded @ self.documents(columns).T, right)

"""The loop of stage III: epochs over stored pairs, the best state by dev MRR, resumable after any epoch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from rabtriever.errors import InputError
from rabtriever.losses import distillation_loss, effective_rank, label_cross_entropy, log_odds, ranking_divergence
from rabtriever.predictor import Predictor
from rabtriever.training.checkpoint import load_state, save_state
from rabtriever.training.labels import MOST_DOCUMENTS
from rabtriever.training.schedule import warm_cosine
from rabtriever.training.start import POWERS, start_from_states

if TYPE_CHECKING:
    from rabtriever.progress import Progress
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import DistillConfig
    from rabtriever.training.pairs import Batch, DevSet, PairSet

__all__ = ["PredictorLoop"]

_RATE, _RATE_FROM_STATES = 1e-3, 1e-4
"""At the first a start from the teacher's states is soon forgotten."""
_COLLAPSED = 1.5
"""An effective rank below this: all queries are folded onto one line."""


class PredictorLoop:
    """Trains a predictor on a set of judged pairs.

    Args:
        teacher: Its answer rows (and head, for the divergence over the vocabulary) are used.
        pairs: What to learn from.
        dev: What to choose the best state by, or None.
        config: Hyper-parameters.
        seed: Seeds the start and every shuffle.
        folder: Where the state of the run is kept.
        progress: Where to report.
    """

    def __init__(
        self,
        teacher: Reranker,
        pairs: PairSet,
        dev: DevSet | None,
        config: DistillConfig,
        seed: int,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.teacher, self.pairs, self.dev, self.config = teacher, pairs, dev, config
        self.seed, self.folder, self.progress = seed, folder, progress
        torch.manual_seed(seed)
        self.predictor = Predictor(teacher.backbone.hidden_size, config.predictor)
        self.predictor.fit_standardization(pairs.e_q, pairs.e_d)
        self.scale = pairs.target_deviation() if config.normalize_target else None
        self.start = self._start_from_states()
        self.steps_per_epoch = -(-len(pairs.e_q) // config.batch_queries)
        self.optimizer = torch.optim.AdamW(
            self.predictor.parameters(), lr=self._peak_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scheduler = LambdaLR(self.optimizer, self._rate)
        self.history: list[dict[str, float]] = []

    def run(self) -> dict[str, Any]:
        """Train to the end or until patience runs out; what was reached."""
        state = self.folder / "state.safetensors"
        if state.exists():
            stored = load_state(state, dict(self.predictor.named_parameters()), self.optimizer, self.scheduler)
            self.history = stored["history"]
            self.pairs.restore(stored["chosen"])
            self.progress.say(f"student: goes on from epoch {len(self.history)}")
        elif self.start is not None:
            self._keep()
        with self.progress.task("student", total=self.config.epochs, unit="epochs") as task:
            task.advance(len(self.history))
            while len(self.history) < self.config.epochs and not self._patience_is_out():
                self._refresh()
                loss = self._epoch(len(self.history))
                entry = {**loss, **self._measure()}
                if self._is_best(entry):
                    self._keep()
                self.history.append(entry)
                extra = {"history": self.history, "chosen": self.pairs.chosen}
                save_state(state, dict(self.predictor.named_parameters()), self.optimizer, self.scheduler, extra)
                task.advance(1)
                task.note(", ".join(f"{key} {value:.3f}" for key, value in entry.items()))
        return self._report()

    def best_predictor(self) -> Predictor:
        """The predictor of the best epoch."""
        return Predictor.load(
            self.folder / "best.safetensors", self.teacher.backbone.hidden_size, self.config.predictor
        )

    def _start_from_states(self) -> dict[str, float] | None:
        """Start at the teacher's states, weighed as dev likes best; what it says there, None where that is no start."""
        if not self._wants_states():
            return None
        pairs = self.pairs.batch(torch.arange(len(self.pairs.e_q)))
        judged = log_odds(self.pairs.outputs.logits(pairs.rows))
        found, direction = (pairs.owner, pairs.documents), self.teacher.rows.direction
        plain, chosen, best = self.predictor, self.predictor, None
        for power in POWERS if self.dev is not None else POWERS[:1]:
            self.predictor = copy.deepcopy(plain)
            if not start_from_states(self.predictor, direction, self.pairs.e_q, self.pairs.e_d, found, judged, power):
                continue
            measured = {"power": power, **self._measure()}
            if best is None or measured["dev_mrr"] > best["dev_mrr"]:
                chosen, best = self.predictor, measured
        self.predictor = chosen
        return best

    def _wants_states(self) -> bool:
        if self.predictor.config.rank is None:
            return False
        if self.config.start != "auto":
            return self.config.start == "states"
        taught: dict[str, Any] = self.teacher.training.get("teacher", {}).get("config", {})
        return bool(taught.get("apart_weight"))

    @property
    def _peak_rate(self) -> float:
        """The learning rate that was asked for, or what suits the start."""
        if self.config.learning_rate is not None:
            return self.config.learning_rate
        return _RATE if self.start is None else _RATE_FROM_STATES

    def _keep(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.predictor.save(self.folder / "best.safetensors")

    def _rate(self, step: int) -> float:
        return warm_cosine(step, self.config.epochs * self.steps_per_epoch, self.config.warmup)

    def _refresh(self) -> None:
        epoch = len(self.history)
        if self.pairs.kind != "on-policy" or epoch == 0 or epoch % self.config.refresh_epochs:
            return
        self.predictor.eval()
        with torch.inference_mode():
            new = self.pairs.refresh(self._fold(self.pairs.e_q), self.predictor.document(self.pairs.e_d))
        self.progress.say(f"student: {new} new pairs from its own ranking, {len(self.pairs)} in all")

    def _epoch(self, epoch: int) -> dict[str, float]:
        self.predictor.train()
        order = torch.randperm(
            len(self.pairs.e_q), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        )
        total = torch.zeros(4)
        for queries in torch.split(order, self.config.batch_queries):
            batch = self.pairs.batch(queries)
            loss, terms = self._loss(batch, epoch)
            value = loss.detach().item()
            if not math.isfinite(value):
                raise InputError(
                    f"the student's loss became {value} in epoch {epoch}",
                    hint="lower distill.learning_rate or distill.kl_weight",
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            total += terms * len(queries) / len(order)
        return dict(zip(("mse", "kl", "ranking", "label"), total.tolist(), strict=True))

    def _loss(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        # The MLP runs once per query, the product once per pair.
        predicted = self._predict(self.pairs.e_q[batch.queries])
        label = self._label_loss(batch.queries, predicted, epoch)
        total = self.config.label_weight * label
        if not len(batch.rows):  # labels alone teach these queries
            return total, torch.stack([*torch.zeros(3), label.detach()])
        taught, terms = self._teacher_loss(batch, predicted)
        return total + taught, torch.stack([*terms, label.detach()])

    def _predict(self, e_q: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            predicted = self.predictor.predict(e_q)
        return predicted.float()

    def _teacher_loss(self, batch: Batch, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher says of the batch's pairs: the weighted sum, and the error, divergence and ranking in it."""
        target = self.pairs.outputs.states(batch.rows)
        documents = self.predictor.document(self.pairs.e_d[batch.documents])
        student = self.predictor.combine(predicted[batch.owner], documents)
        ours, theirs = self.teacher.rows.logits(student), self.pairs.outputs.logits(batch.rows)
        ranking = ranking_divergence(log_odds(ours), log_odds(theirs), batch.owner, self.config.kl)
        if self.config.vocabulary:
            device = self.teacher.backbone.device
            ours = self.teacher.backbone.full_logits(student.to(device)).cpu()
            with torch.no_grad():
                theirs = self.teacher.backbone.full_logits(target.to(device)).cpu()
        if (at := batch.positions) is not None and self.pairs.positions is not None:
            everywhere = self._predict(self.pairs.positions.e_q[at.states])
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

    def _label_loss(self, queries: Tensor, predicted: Tensor, epoch: int) -> Tensor:
        """What the labels say of the whole corpus: one matrix product, since all that is stored folds."""
        if not self.config.label_weight:
            return torch.zeros(())
        columns, right = self.pairs.labels.draw(queries, MOST_DOCUMENTS, self.seed * 1_000_003 + epoch)
        folded = self.predictor.fold_predicted(predicted, self.teacher.rows.direction)
        return label_cross_entropy(folded @ self.predictor.document(self.pairs.e_d[columns]).T, right)

    @torch.inference_mode()
    def _measure(self) -> dict[str, float]:
        self.predictor.eval()
        rank = effective_rank(self._fold(self.pairs.e_q[:512]))
        if self.dev is None:
            return {"effective_rank": rank}
        folded, documents = self._fold(self.dev.e_q), self.predictor.document(self.pairs.e_d)
        mrr, recall, correlation = self.dev.measure(folded, documents)
        return {"dev_mrr": mrr, "dev_r1": recall, "correlation": correlation, "effective_rank": rank}

    def _fold(self, e_q: Tensor) -> Tensor:
        return self.predictor.fold(e_q, self.teacher.rows.direction)

    def _is_best(self, entry: dict[str, float]) -> bool:
        before = self._measured()
        return "dev_mrr" not in entry or not before or entry["dev_mrr"] > max(e["dev_mrr"] for e in before)

    def _measured(self) -> list[dict[str, float]]:
        """What dev said of the start, if that is one to keep, and of each epoch."""
        return self.history if self.start is None else [self.start, *self.history]

    def _patience_is_out(self) -> bool:
        if self.dev is None or not self.history or self.config.patience is None:
            return False
        return len(self.history) - self._best()[0] >= self.config.patience

    def _best(self) -> tuple[int, dict[str, float]]:
        """The epoch that is kept, from 1 on, 0 for the start, and what was measured there; of equals the first."""
        if self.dev is None:
            return len(self.history), self.history[-1]
        first = 1 if self.start is None else 0
        return max(enumerate(self._measured(), first), key=lambda found: found[1]["dev_mrr"])

    def _report(self) -> dict[str, Any]:
        epoch, best = self._best()
        if best["effective_rank"] < _COLLAPSED and self.config.predictor.multiply and len(self.pairs.e_q) > 8:
            self.progress.say(
                f"student: warning: the queries have collapsed (effective rank {best['effective_rank']:.2f}); "
                "try a lower learning rate or distill.mse_weight=0"
            )
        return {
            "epochs": len(self.history),
            "best_epoch": epoch,
            "queries": len(self.pairs.e_q),
            "pairs": len(self.pairs),
            **best,
            "start": self.start,
            "history": self.history,
        }

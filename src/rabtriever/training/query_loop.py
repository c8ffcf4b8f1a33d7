"""Queries learn to be read: an adapter on the query side, trained on labels, while documents and teacher stay.

After stage III, and from its student on. A query is read once, forward and backward, against the vectors of the whole
corpus, which are constant: a step costs as much as its queries, however many documents there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from rabtriever.adapters import adapter_state, fill_adapter
from rabtriever.errors import InputError
from rabtriever.losses import label_cross_entropy
from rabtriever.query_side import QuerySide
from rabtriever.training.candidates import training_queries
from rabtriever.training.checkpoint import load_state, load_weights, save_state
from rabtriever.training.config import TeacherConfig
from rabtriever.training.labels import MOST_DOCUMENTS, Labels, right_places
from rabtriever.training.schedule import warm_cosine
from rabtriever.training.trained_weights import TrainedWeights

if TYPE_CHECKING:
    from rabtriever.data import Dataset
    from rabtriever.progress import Progress
    from rabtriever.retriever import Retriever
    from rabtriever.training.config import QuerySideConfig
    from rabtriever.training.pairs import DevSet

__all__ = ["QueryLoop", "length_batches"]

_SAVE_SECONDS = 300.0
"""A crash or a power cut costs at most so much work."""

_POOL = 8
"""Batches of similar length are made of this many batches' queries, drawn together."""


def length_batches(lengths: list[int], size: int, seed: int) -> Iterator[list[int]]:
    """Rows of similar length, ``size`` at a time, epoch after epoch, each row once in each.

    Example:
        >>> first_epoch = [next(b) for b in [length_batches([3, 9, 3, 9], 2, seed=0)] for _ in range(2)]
        >>> sorted(map(sorted, first_epoch))
        [[0, 2], [1, 3]]
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(lengths))
        for start in range(0, len(order), _POOL * size):
            rows = sorted(order[start : start + _POOL * size].tolist(), key=lambda row: lengths[row])
            parts = [rows[first : first + size] for first in range(0, len(rows), size)]
            for place in rng.permutation(len(parts)):
                yield parts[place]


class QueryLoop:
    """Trains an adapter that a student's queries are read with, and its predictor's query side along.

    Args:
        student: Where it starts from, its adapter for queries included if it has one; of it :meth:`run` changes the
            predictor.
        dataset: Its ``train`` split teaches.
        dev: What to choose the best state by, or None: then the last one is kept.
        config: Hyper-parameters.
        seed: Seeds the start and every draw.
        folder: Where the state of the run is kept.
        progress: Where to report.
    """

    def __init__(
        self,
        student: Retriever,
        dataset: Dataset,
        dev: DevSet | None,
        config: QuerySideConfig,
        seed: int,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.student, self.config, self.seed = student, config, seed
        self.folder, self.progress = folder, progress
        queries = training_queries(dataset, "train", config.max_queries, seed)
        self.ids = [student.reranker.prompt.query_ids(query.text) for query in queries]
        self.labels = Labels(right_places(dataset, "train", queries), len(dataset.corpus))
        self.documents = torch.from_numpy(
            student.encode_document([document.content for document in dataset.corpus.values()])
        )
        self.dev = dev
        self.steps = math.ceil(config.epochs * -(-len(self.ids) // config.batch_queries))
        self.every = max(1, math.ceil(self.steps / config.evaluations))
        self.history: list[dict[str, float]] = []
        self.done, self.tokens, self.seconds = 0, 0, 0.0

    def run(self) -> tuple[QuerySide | None, dict[str, Any]]:
        """Train to the end: what queries are to be read with, and what was reached.

        The student's predictor is then that of the best state too, which belongs to it. Where no state was better on
        dev than the student as it came, that one stays, and no new adapter: one that changes nothing costs time and
        memory.

        Raises:
            InputError: If the loss stops being a number, or the student's adapter is of another rank or of other layers
                than ``config`` says. The predictor is then as it was before.
        """
        teacher, config = self.student.reranker, self.config
        weights = TeacherConfig(lora=config.lora, freeze_layers=config.freeze_layers)
        before = {name: tensor.clone() for name, tensor in self.student.predictor.state_dict().items()}
        trained = TrainedWeights(teacher.backbone, weights, self.seed)
        try:
            torch.manual_seed(self.seed)  # an adapter's start draws as many numbers as it has weights
            if (own := self.student.query_side) is not None:
                fill_adapter(trained.adapted, own.state)
            self._train(trained)
            state, settings = adapter_state(trained.adapted), trained.adapted.peft_config["default"]
        except BaseException:
            self.student.predictor.load_state_dict(before)
            raise
        finally:
            self.student.predictor.eval()
            trained.abandon(teacher)
        best = self.history[self._best()] if self.history else {}
        kept = not self.history or self._best() > 0
        return QuerySide(teacher.backbone, state, settings) if kept else self.student.query_side, {
            "kept": kept,
            "steps": self.done,
            "tokens": self.tokens,
            "queries": len(self.ids),
            **best,
            "history": self.history,
            "seconds": round(self.seconds, 1),
        }

    def _train(self, trained: TrainedWeights) -> None:
        mlp = self.student.predictor.mlp
        parameters = {**trained.parameters, **{f"predictor.{name}": p for name, p in mlp.named_parameters()}}
        groups = [
            {"params": list(trained.parameters.values()), "lr": self.config.learning_rate},
            {"params": list(mlp.parameters()), "lr": self.config.predictor_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay, fused=True)
        scheduler = LambdaLR(optimizer, self._rate)
        state, best = self.folder / "state.safetensors", self.folder / "best.safetensors"
        if state.exists():
            kept = load_state(state, parameters, optimizer, scheduler)
            self.history, self.done = kept["history"], kept["done"]
            self.tokens, self.seconds = kept["tokens"], kept["seconds"]
            self.progress.say(f"queries: goes on from step {self.done}")
        elif self.dev is not None:
            self._evaluate(trained)
            save_state(best, parameters, optimizer, scheduler)
        saved = begin = time.monotonic()
        before = self.seconds
        with self.progress.task("queries", total=self.steps, unit="steps") as task:
            task.advance(self.done)
            rows = length_batches([len(ids) for ids in self.ids], self.config.batch_queries, self.seed)
            for number, batch in enumerate(rows):
                if number < self.done:
                    continue
                if number == self.steps:
                    break
                loss = self._step(trained, batch, number)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
                optimizer.step()
                scheduler.step()
                self.done, self.seconds = number + 1, before + time.monotonic() - begin
                task.advance(1)
                task.note(f"loss {loss.item():.3f}")
                due = self.done % self.every == 0 or self.done == self.steps
                if due and self.dev is not None:
                    task.note(f"dev MRR {self._evaluate(trained):.3f}")
                    if self._best() == len(self.history) - 1:
                        save_state(best, parameters, optimizer, scheduler)
                if due or time.monotonic() - saved > _SAVE_SECONDS:
                    extra = {"history": self.history, "done": self.done, "tokens": self.tokens, "seconds": self.seconds}
                    save_state(state, parameters, optimizer, scheduler, extra)
                    saved = time.monotonic()
        if self.dev is not None:
            load_weights(best, parameters)

    def _step(self, trained: TrainedWeights, batch: list[int], number: int) -> Tensor:
        """Cross-entropy of the batch's labels over the corpus."""
        predictor = self.student.predictor.train()
        trained.backbone.model.train()
        with trained.autocast():
            states = trained.backbone.forward_alike([self.ids[row] for row in batch])
        folded = predictor.fold(states.float().cpu(), self.student.reranker.rows.direction)
        columns, right = self.labels.draw(torch.tensor(batch), MOST_DOCUMENTS, self.seed * 1_000_003 + number)
        loss = label_cross_entropy(folded @ self.documents[columns].T, right)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"the loss on queries became {loss.item()} at step {number + 1}",
                hint="lower distill.query_side.learning_rate",
            )
        self.tokens += sum(len(self.ids[row]) for row in batch)
        return loss

    @torch.inference_mode()
    def _evaluate(self, trained: TrainedWeights) -> float:
        assert self.dev is not None
        trained.backbone.model.train(False)
        predictor = self.student.predictor.eval()
        with trained.autocast():
            states = self.student.reranker.query_states(self.dev.texts)
        mrr, recall, correlation = self.dev.measure(
            predictor.fold(states, self.student.reranker.rows.direction), self.documents
        )
        entry = {"step": self.done, "dev_mrr": mrr, "dev_r1": recall, "correlation": correlation}
        self.history.append(entry)
        return mrr

    def _best(self) -> int:
        mrrs = [entry["dev_mrr"] for entry in self.history]
        return mrrs.index(max(mrrs))

    def _rate(self, step: int) -> float:
        return warm_cosine(step, self.steps, self.config.warmup)

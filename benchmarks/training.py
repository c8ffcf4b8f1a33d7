"""Stage I against the plain loop on the same pairs, and stage III in pairs a second."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measuring import interleaved
from models import Models

from rabtriever import Dataset
from rabtriever.backbone import Backbone
from rabtriever.progress import SilentProgress
from rabtriever.training.config import DistillConfig, TeacherConfig
from rabtriever.training.pairs import PairSet
from rabtriever.training.predictor_loop import PredictorLoop
from rabtriever.training.step import answer_losses
from rabtriever.training.teacher_outputs import TeacherOutputs

_FROZEN = 12
_BATCH = 8


def stage_one(models: Models, dataset: Dataset, queries: int, negatives: int, repeats: int) -> dict[str, Any]:
    """Forward, backward and update on the same pairs with the same layers frozen; the losses must be equal."""
    teacher = models.student.reranker
    prompt = teacher.prompt
    groups, rows, right = [], [], []
    texts = [document.content for document in dataset.corpus.values()]
    for group, query in enumerate(dataset.split("train")[:queries]):
        wanted = sorted(dataset.relevant("train", query.id))[:1]
        chosen = [dataset.corpus[id_].content for id_ in wanted] + texts[group : group + negatives]
        for place, text in enumerate(chosen):
            rows.append(prompt.document_ids(text) + prompt.query_ids(query.text))
            groups.append(group)
            right.append(place == 0)
    answers = (prompt.true_id, prompt.false_id)
    ours, theirs = _trainee(teacher.backbone), _trainee(teacher.backbone)
    config = TeacherConfig(ranking_weight=0.0)
    losses: dict[str, float] = {}

    def step(name: str, backbone: Backbone, optimizer: Any, parts: Callable[[], Iterable[torch.Tensor]]) -> None:
        total = 0.0
        for loss in parts():
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        losses.setdefault(name, total)
        torch.nn.utils.clip_grad_norm_(backbone.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def fast() -> Any:
        return answer_losses(ours[0], rows, torch.tensor(right), groups, answers, config, None)

    def plain() -> Any:
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            batch = theirs[0].pad(rows[part])
            last = batch["attention_mask"].sum(1) - 1
            labels = torch.full_like(batch["input_ids"], -100)
            labels[torch.arange(len(last)), last] = torch.tensor([answers[not yes] for yes in right[part]])
            # The loss over shifted labels would look one position back: the answer follows the last token.
            logits = theirs[0].model(**batch).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
            yield loss * (len(last) / len(rows))

    work = {
        "rabtriever": lambda: step("rabtriever", *ours, fast),
        "plain loop": lambda: step("plain loop", *theirs, plain),
    }
    seconds = interleaved(work, repeats)
    return {
        "pairs": len(rows),
        "tokens": sum(map(len, rows)),
        "dtype": models.number,
        "frozen_layers": _FROZEN,
        "first_loss": losses,
        "systems": {
            name: {"pairs_per_second": len(rows) / spent, "times_plain": seconds["plain loop"] / spent}
            for name, spent in seconds.items()
        },
    }


def _trainee(backbone: Backbone) -> tuple[Backbone, Any]:
    """A copy with its lower layers and embeddings frozen, and an optimiser of the rest."""
    trained = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, backbone.batch_tokens)
    trained.model.requires_grad_(False)
    for layer in list(trained.layers)[min(_FROZEN, len(trained.layers) - 1) :]:
        layer.requires_grad_(True)
    parameters = [p for p in trained.model.parameters() if p.requires_grad]
    return trained, torch.optim.AdamW(parameters, lr=1e-5, fused=True)


def stage_three(
    models: Models, dataset: Dataset, store: Path, queries: int, candidates: int, copies: int
) -> dict[str, Any]:
    """Pairs a second of an epoch over stored pairs, by queries a step.

    A few queries are judged, and each stands in the training set many times, under other ids: an epoch reads as many
    rows of the store, and computes as much, as if they were all different.
    """
    teacher = models.student.reranker
    outputs = TeacherOutputs(teacher, store, SilentProgress())
    drawn = dataset.split("train")[:queries]
    many = [replace(query, id=f"{query.id} {copy}") for copy in range(copies) for query in drawn]
    judged = {query.id: dataset.judgements("train")[query.id.rsplit(" ", 1)[0]] for query in many}
    repeated = Dataset(dataset.name, dataset.corpus, {query.id: query for query in many}, {"train": judged})
    start = time.perf_counter()
    pairs = PairSet(repeated, many, outputs, f"random:{candidates}", 0)
    filled = time.perf_counter() - start
    rows = {}
    for batch, dtype in ((16, "float32"), (64, "float32"), (256, "float32"), (256, "bfloat16")):
        config = DistillConfig(candidates=f"random:{candidates}", batch_queries=batch, dtype=dtype)  # type: ignore[arg-type]
        with TemporaryDirectory() as folder:
            loop = PredictorLoop(teacher, pairs, None, config, 0, Path(folder), SilentProgress())
            seconds = interleaved({"epoch": partial(loop._epoch, 0)}, 3)["epoch"]
        name = f"{batch} queries a step" + (", bfloat16" if dtype == "bfloat16" else "")
        rows[name] = {"pairs_per_second": len(pairs) / seconds}
    return {"pairs": len(pairs), "judged": outputs.computed, "fill_seconds": filled, "systems": rows}

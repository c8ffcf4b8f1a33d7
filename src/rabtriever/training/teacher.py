"""Stage I: fine-tune a causal LM to answer ``<T>`` or ``<F>`` after document and query.

Supervised (cross-entropy on the answer token alone) or DPO on the pair (right answer, wrong answer), over each query's
right documents and the wrong ones that the candidate policy picks. All weights of the upper layers, or LoRA adapters on
them; embeddings and head stay as they are, so that the answer rows mean the same before and after.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.errors import InputError
from rabtriever.progress import Progress, SilentProgress, format_duration
from rabtriever.training.candidates import draw, training_queries, wrong_documents
from rabtriever.training.config import TeacherConfig
from rabtriever.training.plan import Pair, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.backbone import Backbone
    from rabtriever.data import Dataset
    from rabtriever.reranker import Reranker
    from rabtriever.training.budget import Budget
    from rabtriever.training.candidates import ScorePairs

__all__ = ["fit"]


def fit(
    teacher: Reranker,
    dataset: Dataset,
    config: TeacherConfig | None = None,
    output: Path | None = None,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fine-tune the teacher in place.

    Args:
        teacher: What to train.
        dataset: Its ``train`` split is trained on; the best state by MRR on ``dev`` is kept where that split exists.
        config: Hyper-parameters.
        output: A folder for checkpoints; a training that was stopped goes on from there. None keeps nothing.
        seed: Seeds every draw.
        budget: Bounds the training; the schedule is fitted to it.
        progress: Where to report.

    Returns:
        What was done: steps, pairs, tokens, seconds, dev MRR, and the configuration.

    Raises:
        InputError: If the dataset has no training queries, or the loss stops being a number.
        KeyboardInterrupt: After a checkpoint has been written.
    """
    config = config or TeacherConfig()
    progress = progress or SilentProgress()
    with TemporaryDirectory() as scratch:
        folder = output or Path(scratch)
        queries = training_queries(dataset, "train", config.max_queries, seed)
        trained = _Trained(teacher.backbone, config, seed)
        plan = Plan(dataset, queries, config, seed, lambda pairs: trained.score(teacher, pairs), output)
        steps = _steps(trained, plan, teacher, config, budget, folder, progress)
        report = _train(trained, plan, teacher, dataset, config, steps, folder, seed, progress)
    trained.settle(teacher)
    teacher.training["teacher"] = {**report, "config": config.model_dump(), "seed": seed, "data": dataset.fingerprint}
    return report


class _Trained:
    """The weights that stage I changes: adapters, or the upper layers in float32 under autocast."""

    def __init__(self, backbone: Backbone, config: TeacherConfig, seed: int) -> None:
        self.backbone, self.config = backbone, config
        self.dtype = backbone.dtype
        self.reference = copy.deepcopy(backbone.model) if config.objective == "dpo" else None
        layers = backbone.layers
        if config.freeze_layers >= len(layers):
            raise InputError(
                f"teacher.freeze_layers={config.freeze_layers} leaves nothing to train in {len(layers)} layers",
                hint=f"freeze at most {len(layers) - 1}",
            )
        backbone.model.requires_grad_(False)
        self.adapted: Any = None
        if config.lora is None:
            backbone.model.to(torch.float32)  # type: ignore[arg-type]  # transformers wraps it without types
            for layer in layers[config.freeze_layers :]:
                layer.requires_grad_(True)
        else:
            torch.manual_seed(seed)
            self.adapted = _add_adapters(backbone, config)
        self.parameters = {n: p for n, p in backbone.model.named_parameters() if p.requires_grad}

    def autocast(self) -> torch.autocast:
        low = self.dtype if self.dtype != torch.float32 else torch.bfloat16
        return torch.autocast(self.backbone.device.type, dtype=low, enabled=self.dtype != torch.float32)

    def score(self, teacher: Reranker, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Log-odds by the weights as they are now: without dropout, and without documents read by former weights."""
        self.backbone.model.train(False)
        teacher.forget()
        with self.autocast():
            scores = teacher.score_pairs(pairs)
        teacher.forget()
        return scores

    def settle(self, teacher: Reranker) -> None:
        """Give the model back as it will be loaded: adapters merged, weights in the format it computes in."""
        # An adapter says how weights differ from the base model's own: on top of any others it would mean nothing.
        on_base = teacher.base is not None and teacher.weights_hash == teacher.base.fingerprint
        teacher.adapter = teacher.adapter_config = None
        model = self.backbone.model
        if self.adapted is not None:
            from peft import get_peft_model_state_dict

            trained = {k: v.detach().cpu().clone() for k, v in get_peft_model_state_dict(self.adapted).items()}
            if on_base:
                teacher.adapter, teacher.adapter_config = trained, self.adapted.peft_config["default"]
            self.backbone.model = self.adapted.merge_and_unload()
        else:
            for parameter in model.parameters():  # buffers stay: rotary frequencies are float32 in every format
                parameter.data = parameter.data.to(self.dtype)
            trained = {n: p for n, p in self.backbone.model.named_parameters() if n in self.parameters}
        self.backbone.model.requires_grad_(False).train(False)
        teacher.weights_hash = _hash(teacher.weights_hash, trained)
        teacher.forget()


def _hash(before: str, trained: Mapping[str, Tensor]) -> str:
    """Identifies the new weights: the old ones' hash and all that was trained, as it is stored."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in sorted(trained.items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _add_adapters(backbone: Backbone, config: TeacherConfig) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise InputError(
            "LoRA needs the package peft", hint="install rabtriever[train], or set teacher.lora=null"
        ) from error
    assert config.lora is not None
    chosen = {id(m) for layer in backbone.layers[config.freeze_layers :] for m in layer.modules()}
    names = [
        name
        for name, module in backbone.model.named_modules()
        if id(module) in chosen and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=names,
        bias="none",
    )
    return get_peft_model(backbone.model, lora)


def _pair_ids(teacher: Reranker, pairs: list[Pair]) -> list[list[int]]:
    return [teacher.prompt.document_ids(p.document) + teacher.prompt.query_ids(p.query) for p in pairs]


def _steps(
    trained: _Trained,
    plan: Plan,
    teacher: Reranker,
    config: TeacherConfig,
    budget: Budget | None,
    folder: Path,
    say: Progress,
) -> int:
    """How many steps to train; a budget of time is turned into steps once and remembered for a resume."""
    from rabtriever.files import read_json, write_json

    remembered = folder / "steps.json"
    if remembered.exists():
        return int(read_json(remembered)["steps"])
    steps = math.ceil(config.epochs * plan.steps_per_epoch)
    sample = [_pair_ids(teacher, plan.step(n)) for n in range(min(4, steps))]
    tokens = sum(len(ids) for step in sample for ids in step) / len(sample)
    speed = _tokens_per_second(trained, sample[0], config)
    if budget is not None and budget.tokens is not None:
        steps = min(steps, max(1, int(budget.tokens / tokens)))
    if budget is not None and budget.seconds is not None:
        # Dev evaluations and checkpoints take a share as well.
        steps = min(steps, max(1, int(0.85 * budget.seconds * speed / tokens)))
    seconds = steps * tokens / speed
    say.say(
        f"teacher: {steps} steps of {plan.size} queries, about {steps * tokens:,.0f} tokens at {speed:,.0f} tokens/s: "
        f"about {format_duration(seconds)}"
    )
    write_json(remembered, {"steps": steps, "tokens_per_step": tokens, "tokens_per_second": speed})
    return steps


def _tokens_per_second(trained: _Trained, ids: list[list[int]], config: TeacherConfig) -> float:
    """Forward and backward over one step, without changing a weight."""
    from rabtriever.training.step import answer_losses

    labels = torch.zeros(len(ids), dtype=torch.bool)
    begin = time.perf_counter()
    with trained.autocast():
        for loss in answer_losses(trained.backbone, ids, labels, (0, 1), config, reference=None):
            loss.backward()  # type: ignore[no-untyped-call]
    for parameter in trained.parameters.values():
        parameter.grad = None
    return sum(map(len, ids)) / (time.perf_counter() - begin)


def dev_groups(dataset: Dataset, config: TeacherConfig, seed: int) -> list[tuple[str, list[str], int]]:
    """Dev queries with their candidates, the right ones first: (query, documents, how many are right)."""
    if "dev" not in dataset.qrels or not dataset.split("dev"):
        return []
    rng = np.random.default_rng([seed, 1])
    groups = []
    for query in training_queries(dataset, "dev", config.dev_queries, seed):
        right = sorted(dataset.relevant("dev", query.id))
        wrong = draw(wrong_documents(dataset, "dev", query), max(1, config.dev_candidates - len(right)), rng)
        groups.append((query.text, [dataset.corpus[i].content for i in right + wrong], len(right)))
    return groups


def dev_mrr(score_pairs: ScorePairs, groups: list[tuple[str, list[str], int]]) -> float:
    """Mean reciprocal rank of the first right document among the candidates; ties count against it."""
    scores = score_pairs([(query, document) for query, documents, _ in groups for document in documents])
    total, start = 0.0, 0
    for _, documents, right in groups:
        group = scores[start : start + len(documents)]
        best = group[:right].max()
        total += 1.0 / (1 + int((group[right:] >= best).sum()))
        start += len(documents)
    return total / len(groups)


def _train(
    trained: _Trained,
    plan: Plan,
    teacher: Reranker,
    dataset: Dataset,
    config: TeacherConfig,
    steps: int,
    folder: Path,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    from rabtriever.training.trainer import TeacherTrainer, last_checkpoint, training_arguments

    groups = dev_groups(dataset, config, seed)
    arguments = training_arguments(config, steps, folder, seed, evaluated=bool(groups) and config.evaluations > 0)
    with progress.task("teacher", total=steps, unit="steps") as task:
        trainer = TeacherTrainer(
            trained, plan, teacher, config, arguments, mrr=lambda: dev_mrr(plan.score_pairs, groups), task=task
        )
        resumed = last_checkpoint(folder)
        if resumed is not None:
            progress.say(f"teacher: goes on from step {resumed.name.removeprefix('checkpoint-')}")
        return trainer.run(resumed)

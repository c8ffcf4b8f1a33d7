"""Stage I: fine-tune a causal LM to answer ``<T>`` or ``<F>`` after document and query.

Supervised (cross-entropy on the answer token alone) or DPO on the pair (right answer, wrong answer), over each query's
right documents and the wrong ones that the candidate policy picks. All weights of the upper layers, or LoRA adapters on
them; embeddings and head stay as they are, so that the answer rows mean the same before and after.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from rabtriever.progress import Progress, SilentProgress, format_duration
from rabtriever.training.candidates import WrongDocuments, training_queries
from rabtriever.training.config import TeacherConfig
from rabtriever.training.plan import Plan
from rabtriever.training.processes import Processes
from rabtriever.training.run_settings import check_settings
from rabtriever.training.trained_weights import TrainedWeights

if TYPE_CHECKING:
    from rabtriever.data import Dataset
    from rabtriever.reranker import Reranker
    from rabtriever.training.budget import Budget
    from rabtriever.training.candidates import Mixture, ScorePairs
    from rabtriever.training.step import Step

__all__ = ["fit"]

_FEW = 1000
"""Of fewer labelled queries (314 and 403 were tried) reading apart has made no better student, for half the time."""
_PASSES, _MEASURING = 5, 0.1
"""How often a step is timed before training at most, and for which share of a budget of time."""


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
        InputError: If the dataset has no training queries, ``output`` holds a training with other settings, or the
            loss stops being a number.
        KeyboardInterrupt: After a checkpoint has been written.

    Whatever is raised, the teacher is then as it was before. Several processes that a launcher started train one
    teacher together, each on its share of every step; each of them has it in the end.
    """
    config = config or TeacherConfig()
    progress, processes = progress or SilentProgress(), Processes.together()
    processes.need_folder(output)
    with TemporaryDirectory() as scratch:
        folder = output or Path(scratch)
        queries = training_queries(dataset, "train", config.max_queries, seed)
        if config.apart_weight and (labelled := len(dataset.split("train"))) < _FEW:
            progress.say(
                f"teacher: to read apart as well has not paid with as few labelled queries as {labelled:,}; "
                "teacher.apart_weight=0 leaves it out and trains faster"
            )
        if output is not None:
            with processes.first_goes_ahead():
                check_settings(output, _settings(teacher, dataset, config, seed, budget))
        trained = TrainedWeights(teacher.backbone, config, seed)
        try:
            plan = Plan(dataset, queries, config, seed, lambda pairs: trained.score(teacher, pairs), output, processes)
            steps = _steps(trained, plan, teacher, config, budget, folder, progress, processes)
            report = _train(trained, plan, teacher, dataset, config, steps, folder, seed, progress, processes)
        except BaseException:
            trained.abandon(teacher)
            raise
    trained.settle(teacher)
    teacher.training["teacher"] = {
        **report,
        "config": config.model_dump(),
        "seed": seed,
        "dataset": dataset.name,
        "data": dataset.fingerprint,
    }
    return report


def _settings(
    teacher: Reranker, dataset: Dataset, config: TeacherConfig, seed: int, budget: Budget | None
) -> dict[str, Any]:
    """All that decides what a training makes."""
    return {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "budget": asdict(budget) if budget else {},
        "data": dataset.fingerprint,
        "model": teacher.fingerprint,
    }


def _steps(
    trained: TrainedWeights,
    plan: Plan,
    teacher: Reranker,
    config: TeacherConfig,
    budget: Budget | None,
    folder: Path,
    say: Progress,
    processes: Processes,
) -> int:
    """How many steps to train; a budget of time is turned into steps once and remembered for a resume."""
    from rabtriever.files import read_json, write_json
    from rabtriever.training.step import Step

    remembered = folder / "steps.json"
    known = remembered.exists()
    processes.wait()
    if known:
        return int(read_json(remembered)["steps"])
    steps = math.ceil(config.epochs * plan.steps_per_epoch)
    sample = [Step.read(teacher.prompt, plan, number) for number in range(min(4, steps))]
    tokens = sum(step.tokens for step in sample) / len(sample)
    bound = budget.seconds if budget is not None and budget.seconds is not None else 0.0
    speed = processes.count * _tokens_per_second(trained, sample[0], teacher, config, _MEASURING * bound)
    if budget is not None and budget.tokens is not None:
        steps = min(steps, max(1, int(budget.tokens / tokens)))
    if bound:  # dev evaluations and checkpoints take a share as well
        steps = min(steps, max(1, int(0.85 * bound * speed / tokens)))
    seconds = steps * tokens / speed
    say.say(
        f"teacher: {steps} steps of {plan.size} queries, about {steps * tokens:,.0f} tokens at {speed:,.0f} tokens/s: "
        f"about {format_duration(seconds)}"
    )
    with processes.first_goes_ahead():  # each has measured a speed of its own: the first one's counts
        if processes.first:
            write_json(remembered, {"steps": steps, "tokens_per_step": tokens, "tokens_per_second": speed})
        return int(read_json(remembered)["steps"])


def _tokens_per_second(
    trained: TrainedWeights, step: Step, teacher: Reranker, config: TeacherConfig, patience: float
) -> float:
    """The fastest of a few passes forward and backward over one step, without changing a weight.

    The first pass warms up, and a busy moment of the machine would stand for the whole training if one pass alone
    counted: there are two in any case, and up to five until ``patience`` seconds are over.
    """
    import torch

    from rabtriever.training.step import step_losses

    answers = (teacher.prompt.true_id, teacher.prompt.false_id)
    begin, fastest = time.perf_counter(), math.inf
    for number in range(_PASSES):
        start = time.perf_counter()
        if number > 1 and start - begin > patience:
            break
        with trained.autocast():
            for loss in step_losses(trained.backbone, step, answers, config, reference=None):
                loss.backward()  # type: ignore[no-untyped-call]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    for parameter in trained.parameters.values():
        parameter.grad = None
    return step.tokens / fastest


def dev_groups(
    dataset: Dataset, config: TeacherConfig, seed: int, mixture: Mixture | None = None
) -> list[tuple[str, list[str], int]]:
    """Dev queries with their candidates, the right ones first: (query, documents, how many are right).

    Where training draws documents from a ``mixture``, so does this: random ones alone tell good teachers from bad ones
    no better than they teach them.
    """
    if "dev" not in dataset.qrels or not dataset.split("dev"):
        return []
    rng = np.random.default_rng([seed, 1])
    others = WrongDocuments(dataset) if mixture is None else mixture.hard.wrong
    groups = []
    for query in training_queries(dataset, "dev", config.dev_queries, seed):
        right = sorted(dataset.relevant("dev", query.id))
        count = max(1, config.dev_candidates - len(right))
        wrong = others.draw("dev", query, count, rng) if mixture is None else mixture("dev", query, count, rng)
        groups.append((query.text, [dataset.corpus[i].content for i in right + wrong], len(right)))
    return groups


def dev_mrr(
    score_pairs: ScorePairs, groups: list[tuple[str, list[str], int]], processes: Processes | None = None
) -> float:
    """Mean reciprocal rank of the first right document among the candidates; ties count against it.

    Several processes share the queries.
    """
    processes = processes or Processes()
    own = processes.share(groups)
    scores = score_pairs([(query, document) for query, documents, _ in own for document in documents])
    total, start = 0.0, 0
    for _, documents, right in own:
        group = scores[start : start + len(documents)]
        best = group[:right].max()
        total += 1.0 / (1 + int((group[right:] >= best).sum()))
        start += len(documents)
    return processes.total(total) / len(groups)


def _train(
    trained: TrainedWeights,
    plan: Plan,
    teacher: Reranker,
    dataset: Dataset,
    config: TeacherConfig,
    steps: int,
    folder: Path,
    seed: int,
    progress: Progress,
    processes: Processes,
) -> dict[str, Any]:
    from rabtriever.training.trainer import TeacherTrainer, last_checkpoint, training_arguments

    groups = dev_groups(dataset, config, seed, plan.mixture)
    arguments = training_arguments(config, steps, folder, seed, evaluated=bool(groups) and config.evaluations > 0)
    with progress.task("teacher", total=steps, unit="steps") as task:
        trainer = TeacherTrainer(
            trained,
            plan,
            teacher,
            config,
            arguments,
            mrr=lambda: dev_mrr(plan.score_pairs, groups, processes),
            task=task,
            processes=processes,
        )
        resumed = last_checkpoint(folder)
        processes.wait()
        if resumed is not None:
            progress.say(f"teacher: goes on from step {resumed.name.removeprefix('checkpoint-')}")
        return trainer.run(resumed)

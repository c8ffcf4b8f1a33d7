"""From a dataset to a model folder: stage I, stage III, resumable at any moment."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.artifacts import is_artifact
from rabtriever.files import check_replaceable
from rabtriever.progress import Progress, SilentProgress, format_duration
from rabtriever.training.config import TrainConfig
from rabtriever.training.distill import distill
from rabtriever.training.lock import training_lock
from rabtriever.training.processes import Processes
from rabtriever.training.run_settings import check_settings

if TYPE_CHECKING:
    from rabtriever.data import Dataset
    from rabtriever.reranker import Reranker
    from rabtriever.retriever import Retriever
    from rabtriever.training.budget import Budget

__all__ = ["TrainResult", "train"]

_RUNS = "runs"
"""What a run needs to go on; its name is kept when the folder is replaced."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training made.

    Attributes:
        path: The model folder.
        student: The retriever; its ``reranker`` is the teacher.
        teacher_report: What stage I did.
        student_report: What stage III did.
        seconds: Wall-clock time of this call.
    """

    path: Path
    student: Retriever
    teacher_report: dict[str, Any] = field(default_factory=dict)
    student_report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def train(
    dataset: Dataset,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train teacher and student and save both as one model folder.

    The folder holds the run's state until it is done: the same call goes on where a stopped one ended, and a finished
    one is loaded. Several processes that a launcher such as ``accelerate launch`` started take the steps of stage I
    together; the first of them then distils, and the others wait for its model.

    Args:
        dataset: In BEIR layout, with ``train`` and, to choose the best states by, ``dev``.
        output: The model folder.
        config: Hyper-parameters of both stages.
        budget: Bounds stage I.
        progress: Where to report.

    Raises:
        InputError: If ``output`` holds a run with other settings or data, or another process trains there.

    Example:
        >>> result = train(Dataset.load("saycan"), "saycan-model", TrainConfig())      # doctest: +SKIP
    """
    config, output, processes = config or TrainConfig(), Path(output), Processes.together()
    progress = (progress if processes.first else None) or SilentProgress()
    begin = time.perf_counter()
    check_replaceable(output, keep=("teacher", _RUNS))
    runs, trained = output / _RUNS, is_artifact(output)
    with training_lock(runs) if processes.first else nullcontext():
        bound = asdict(budget) if budget else {}
        settings = {"config": config.model_dump(mode="json"), "data": dataset.fingerprint, "budget": bound}
        with processes.first_goes_ahead():
            check_settings(runs, settings, shown=output)
        if trained:
            progress.say(f"{output} is already trained with these settings")
            student = _load(output, config)
        else:
            teacher = _teacher(dataset, runs, config, budget, progress, processes)
            student = _student(teacher, dataset, output, config, progress, processes)
    seconds = round(time.perf_counter() - begin, 1)
    progress.say(f"model saved to {output} after {format_duration(seconds)}")
    return TrainResult(
        output, student, student.reranker.training.get("teacher", {}), student.training.get("distill", {}), seconds
    )


def _teacher(
    dataset: Dataset,
    runs: Path,
    config: TrainConfig,
    budget: Budget | None,
    progress: Progress,
    processes: Processes,
) -> Reranker:
    """Stage I, or its result if it is there."""
    from rabtriever.reranker import Reranker

    folder = runs / "teacher"
    if is_artifact(folder):
        progress.say("teacher: trained already")
        return Reranker.from_pretrained(folder, dtype=config.dtype)
    # A trained model as the base brings its own prompt: only one that was asked for is held against it.
    prompt = config.prompt if "prompt" in config.model_fields_set else None
    teacher = Reranker.from_pretrained(config.base, prompt=prompt, dtype=config.dtype)
    teacher.fit(dataset, config.teacher, runs / "teacher-state", seed=config.seed, budget=budget, progress=progress)
    if processes.first:
        teacher.save_pretrained(folder)
    return teacher


def _student(
    teacher: Reranker, dataset: Dataset, output: Path, config: TrainConfig, progress: Progress, processes: Processes
) -> Retriever:
    """Stage III, by the first process; what only an unfinished run needs is removed after it."""
    if not processes.first:
        processes.wait()
        return _load(output, config)
    runs = output / _RUNS
    student = distill(teacher, dataset, config.distill, runs / "student", seed=config.seed, progress=progress)
    student.save_pretrained(output)
    for state in ("teacher", "teacher-state", "student"):
        shutil.rmtree(runs / state, ignore_errors=True)
    processes.wait()
    return student


def _load(output: Path, config: TrainConfig) -> Retriever:
    from rabtriever.retriever import Retriever

    return Retriever.from_pretrained(output, dtype=config.dtype)

"""``train`` and ``distill``: from labelled pairs to a teacher, and from a teacher to a student."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rabtriever.cli.options import (
    Config,
    Corpus,
    DatasetName,
    Json,
    Seed,
    Set,
    load_dataset,
    read_settings,
    train_config,
)
from rabtriever.cli.output import session
from rabtriever.progress import format_duration

__all__ = ["distill", "train"]

_Output = Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="The folder to write the model to.")]


def train(
    dataset: DatasetName,
    output: _Output,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="A base model: smollm2-135m, a folder, or a hub id.")
    ] = None,
    corpus: Corpus = None,
    config: Config = None,
    assignments: Set = None,
    budget: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Bounds stage I: 90s, 20m, 2h, or 500k, 2M tokens.")
    ] = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Train a teacher on labelled pairs and distil it into a student; a training that was stopped goes on."""
    with session(json, interrupted=_kept(output)) as out:
        from rabtriever.training.budget import Budget

        bound = None if budget is None else Budget.parse(budget)
        settings = train_config(read_settings(config, assignments, base=base, seed=seed))
        data = load_dataset(dataset, corpus)
        from rabtriever.training.pipeline import train as run
        from rabtriever.training.processes import Processes

        result = run(data, output, settings, budget=bound, progress=out.progress)
        payload = {
            "model": output,
            "seconds": result.seconds,
            "teacher": result.teacher_report,
            "student": result.student_report,
        }
        lines = [_line("teacher", result.teacher_report), *_student_lines(result.student_report)]
        lines.append(_next(output, dataset, corpus))
        if Processes.together().first:
            out.emit(payload, "\n".join(lines))


def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="A trained teacher's folder, or a base model.")],
    dataset: DatasetName,
    output: _Output,
    corpus: Corpus = None,
    config: Config = None,
    assignments: Set = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Distil a teacher into a student (stage III alone); the settings are those of train, under distill."""
    with session(json, interrupted=_kept(output)) as out:
        given = read_settings(config, assignments, seed=seed)
        settings = train_config(given)
        from rabtriever.artifacts import is_artifact
        from rabtriever.errors import InputError
        from rabtriever.files import check_replaceable

        unused = [s for s in given if s.key not in ("seed", "dtype") and not s.key.startswith("distill")]
        if unused:
            first = unused[0]
            raise InputError(
                f"{first.place}: {first.key} belongs to stage I, which distill does not run",
                hint="leave it out; seed, dtype and the keys under distill are used",
            )
        if is_artifact(output):
            raise InputError(f"{output} holds a model already", hint="choose another output folder, or delete it")
        check_replaceable(output, keep=("teacher", "runs"))
        runs = output / "runs"
        data = load_dataset(dataset, corpus)
        from rabtriever.reranker import Reranker
        from rabtriever.training.distill import distill as run
        from rabtriever.training.lock import training_lock

        with training_lock(runs):
            judge = Reranker.from_pretrained(teacher, dtype=settings.dtype)
            student = run(judge, data, settings.distill, runs / "student", seed=settings.seed, progress=out.progress)
            student.save_pretrained(output)
        shutil.rmtree(runs, ignore_errors=True)
        report = student.training["distill"]
        lines = [*_student_lines(report), _next(output, dataset, corpus)]
        out.emit({"model": output, "student": report}, "\n".join(lines))


def _kept(output: Path) -> str:
    return f"stopped; what was trained so far is kept in {output}, and the same command again goes on from there"


def _next(output: Path, dataset: str, corpus: str | None) -> str:
    return f"next: rabtriever evaluate {output} {dataset}" + ("" if corpus is None else f" --corpus {corpus}")


def _student_lines(report: Mapping[str, Any]) -> list[str]:
    """The predictor's line, and that of the queries' adapter where one was trained."""
    side = report.get("query_side")
    if not side:
        return [_line("student", report)]
    left = "" if side.get("kept", True) else "; no better than without an adapter, so there is none"
    return [_line("student", report), _line("queries", side) + left]


def _line(name: str, report: Mapping[str, Any]) -> str:
    """A stage's report in one line: what it did and what it reached on dev.

    Example:
        >>> _line("student", {"epochs": 12, "dev_mrr": 0.5123, "seconds": 61.0})
        'student: 12 epochs, dev MRR 0.512, 1m01s'
    """
    shown = [f"{report[unit]:,} {unit}" for unit in ("steps", "epochs", "pairs", "tokens") if unit in report]
    shown += [f"{label} {report[key]:.3f}" for key, label in _REACHED.items() if report.get(key) is not None]
    shown += [format_duration(report["seconds"])] if "seconds" in report else []
    return f"{name}: {', '.join(shown)}"


_REACHED = {"dev_mrr": "dev MRR", "correlation": "correlation with the teacher"}

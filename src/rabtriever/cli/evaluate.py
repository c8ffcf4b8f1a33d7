"""``evaluate``: a model beside its teacher, its untrained base, BM25 and any dense model, on one split."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rabtriever.cli.options import Corpus, DatasetName, Json, load_dataset
from rabtriever.cli.output import session, table

if TYPE_CHECKING:
    from rabtriever.compiled import CompiledRetriever
    from rabtriever.evaluation import Report, StudentSystem, System
    from rabtriever.reranker import Reranker
    from rabtriever.retriever import Retriever

__all__ = ["build_systems", "evaluate", "report_text"]

_KINDS = (
    "student[:MODEL], hybrid, hybrid:WEIGHT, hybrid:ranks, rerank, teacher[:MODEL], untrained[:BASE], bm25, "
    "dense:PATH_OR_HUB_ID"
)
_TAKES_MORE = {
    **dict.fromkeys(("rerank", "bm25"), (False,)),
    **dict.fromkeys(("student", "hybrid", "teacher", "untrained"), (False, True)),
    "dense": (True,),
}
_RERANKED = 20
"""Of the student's best so many are read by ``rerank`` unless ``--candidates`` says otherwise."""

_MANY_PAIRS = 20_000
"""Teacher passes beyond which it is worth saying how to have fewer: about twenty minutes on two cores."""


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A trained model's folder, what it was exported to, or a base model.")
    ],
    dataset: DatasetName,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which judgements: qrels/NAME.tsv.")] = "test",
    corpus: Corpus = None,
    systems: Annotated[
        str | None,
        typer.Option(metavar="LIST", help=f"With commas between: {_KINDS}. By default all that MODEL has, and bm25."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Draw N queries at random.")] = None,
    teacher_limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The teacher answers only N of them.")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="The teacher reads only BM25's (rerank: the student's) best N documents."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the draw and of the significance tests.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the report, query by query, as JSON; stopped, it goes on."
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each system's best 100 documents as FOLDER/NAME.trec, a TREC run."),
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Write the figures into MODEL's own card.")] = False,
    join: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Add what an earlier report (-o FILE) says of systems not measured now."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure systems side by side: R@1/3/5, MRR@10, nDCG@10, milliseconds per query, paired significance tests."""
    with session(json, interrupted=_kept(output)) as out:
        from rabtriever.errors import InputError

        if output is not None and output.is_dir():  # found out before the hours, not after
            raise InputError(f"{output} is a folder", hint="name a file inside it")
        if runs is not None and runs.exists() and not runs.is_dir():
            raise InputError(f"{runs} is a file", hint="name a folder for the runs")
        if card:
            _check_card(model)
        data = load_dataset(dataset, corpus)
        data.judgements(split)  # refuses a split that is not there before a model is loaded
        from rabtriever.evaluation import evaluate as run
        from rabtriever.evaluation.stored import check_joinable, join_reports, load_report

        stored = [load_report(path) for path in join or ()]
        for earlier in stored:
            check_joinable(earlier, data.fingerprint, split, seed)

        chosen = build_systems(model, systems, candidates)
        answered = min(n for n in (limit, teacher_limit, len(data.split(split))) if n is not None)
        pairs = answered * min(candidates or len(data.corpus), len(data.corpus))
        if pairs > _MANY_PAIRS and any(getattr(system, "pairwise", False) for system in chosen.values()):
            out.progress.say(f"a reranker reads {pairs:,} pairs (--teacher-limit and --candidates make them fewer)")
        report = run(
            chosen,
            data,
            split,
            limit=limit,
            teacher_limit=teacher_limit,
            seed=seed,
            progress=out.progress,
            partial=None if output is None else _partial(output),
            runs=runs,
        )
        for earlier in stored:
            report = join_reports(report, earlier)
        if output is not None:
            report.save(output)
            _partial(output).unlink(missing_ok=True)
            out.progress.say(f"the report is in {output}")
        if runs is not None:
            out.progress.say(f"the runs are in {runs}")
        if card:
            from rabtriever.model_folder import note_results

            note_results(Path(model), report.to_dict())
            out.progress.say(f"the figures are in {Path(model) / 'README.md'}")
        out.emit(report.to_dict(), report_text(report, compared=True))


def _partial(output: Path) -> Path:
    """Where an evaluation keeps what it has found until its report is written."""
    return output.parent / f"{output.name}.partial"


def _kept(output: Path | None) -> str:
    if output is None:
        return "stopped; nothing was changed"
    place = _partial(output)
    return f"stopped; what a reranker found is kept in {place}, and the same command again goes on from there"


def _check_card(model: str) -> None:
    """Find out before the hours, not after, whether the model has a card of its own."""
    from rabtriever.artifacts import is_artifact
    from rabtriever.errors import InputError

    if not is_artifact(model):
        raise InputError(f"--card: {model} is not the folder of a trained model", hint="leave --card out")


def build_systems(model: str, wanted: str | None, candidates: int | None = None) -> dict[str, System]:
    """Load the systems that the user named; student and teacher share one language model in memory.

    Args:
        model: A trained model's folder, what it was exported to (the student alone), or a base model.
        wanted: Names with commas between; all that the model has, and BM25, when left out.
        candidates: How many of BM25's documents rerankers read; all when left out.

    Raises:
        InputError: If a name is unknown or stands there twice, or a model cannot be loaded.

    Example:
        >>> list(build_systems("any", "bm25"))
        ['bm25']
    """
    models, others = _Models(model), cache(_Models)  # of another model, too, student and teacher share what is loaded
    names = _names(wanted) if wanted is not None else [*models.parts, "bm25"]
    from rabtriever.evaluation import Bm25System, DenseSystem, HybridSystem, StudentSystem, TeacherSystem
    from rabtriever.fusion import parse_hybrid

    def load(kind: str, more: str) -> System:
        if kind == "student":
            return StudentSystem(others(more).student, f"student of {more}") if more else models.student_system
        if kind == "hybrid":
            return HybridSystem(models.student_system, hybrid=parse_hybrid(more) if more else True)
        if kind == "rerank":
            return TeacherSystem(models.teacher, candidates=candidates or _RERANKED, first=models.student_system)
        if kind == "teacher" and more:
            return TeacherSystem(others(more).teacher, f"teacher of {more}", candidates)
        if kind == "teacher":
            return TeacherSystem(models.teacher, candidates=candidates)
        if kind == "untrained":
            return TeacherSystem(models.untrained(more), "untrained teacher", candidates)
        return DenseSystem(more) if kind == "dense" else Bm25System()

    return {name: load(name.partition(":")[0], name.partition(":")[2]) for name in names}


def report_text(report: Report, compared: bool = False) -> str:
    """The report as tables, with what the student keeps of its teacher.

    Args:
        report: The report.
        compared: Whether the differences between systems follow, each with its interval and p-value.
    """
    columns, rows = report.rows()
    parts = [table(columns, rows, f"{report.dataset}, split {report.split}, {report.queries:,} queries")]
    kept = report.retention
    if kept is not None:
        shares = [f"{100 * kept[name]:.1f} % of its {name}" for name in ("R@1", "MRR@10") if kept[name] is not None]
        if shares:
            parts.append(f"the student keeps of the teacher, on {kept['queries']:,} queries: {', '.join(shares)}")
    if compared and report.comparisons:
        columns, rows = report.comparison_rows()
        parts.append(table(columns, [row for row in rows if row[1] in ("R@1", "MRR@10")], "differences"))
    return "\n\n".join(parts)


class _Models:
    """The parts of the model that the user named, each loaded once and when it is needed."""

    def __init__(self, name: str) -> None:
        from rabtriever.artifacts import ArtifactConfig, is_artifact
        from rabtriever.compiled import is_compiled
        from rabtriever.model_folder import trained_folder

        self.name, self.config = name, None
        self.exported = is_compiled(name)
        if self.exported:
            return
        folder = trained_folder(name)
        self.config = ArtifactConfig.read(folder) if is_artifact(folder) else None

    @property
    def parts(self) -> list[str]:
        """What it can answer with."""
        if self.exported:
            return ["student"]
        return ["student", "teacher"] if self.config is not None and self.config.kind == "retriever" else ["teacher"]

    @cached_property
    def student(self) -> Retriever | CompiledRetriever:
        from rabtriever.compiled import load_student

        return load_student(self.name)

    @cached_property
    def student_system(self) -> StudentSystem:
        """One for all systems that it is a part of, so that the corpus is encoded once."""
        from rabtriever.evaluation import StudentSystem

        return StudentSystem(self.student)

    @cached_property
    def teacher(self) -> Reranker:
        from rabtriever.errors import InputError
        from rabtriever.reranker import Reranker

        if self.exported:
            raise InputError(
                f"{self.name} is an export, which answers as the student alone",
                hint="name the model that was exported, or leave the rerankers out",
            )
        teacher = self.student.reranker if "student" in self.parts else Reranker.from_pretrained(self.name)
        assert isinstance(teacher, Reranker)
        return teacher

    def untrained(self, base: str) -> Reranker:
        """The language model as it was before training, with the same prompt."""
        from rabtriever.errors import InputError
        from rabtriever.prompt import PromptConfig
        from rabtriever.reranker import Reranker

        if self.config is None:
            return Reranker.from_pretrained(base) if base else self.teacher  # refused of an export
        try:
            prompt = PromptConfig.model_validate(self.config.prompt)
            return Reranker.from_pretrained(base or self.config.base.name, prompt=prompt)
        except InputError as error:
            if base:
                raise
            raise InputError(
                f"the base model {self.config.base.name} of {self.name} is not to be found: {error.message}",
                hint="name it: --systems untrained:FOLDER_OR_HUB_ID,...",
            ) from error


def _names(wanted: str) -> list[str]:
    """The names of the systems, each checked to be one."""
    from rabtriever.errors import InputError

    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        kind, _, more = name.partition(":")
        if bool(more) not in _TAKES_MORE.get(kind, ()):
            raise InputError(f"--systems: {name!r} is no system", hint=f"choose from {_KINDS}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"--systems: {wanted!r} must name systems, each once", hint=f"choose from {_KINDS}")
    return names

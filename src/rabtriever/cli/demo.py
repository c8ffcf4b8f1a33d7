"""``demo``: everything once on the example data, with the functions behind the other verbs."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabtriever.cli.evaluate import report_text
from rabtriever.cli.options import Json, read_settings, train_config
from rabtriever.cli.output import one_line, session
from rabtriever.progress import format_duration

if TYPE_CHECKING:
    from rabtriever.evaluation import System
    from rabtriever.index import Index

__all__ = ["demo"]

_BUDGET = "4m"
"""Stage I; with stage III, indexing and evaluation the whole stays within ten minutes on two cores."""

_SETTINGS = (
    "prompt.max_query_tokens=64",
    "prompt.max_document_tokens=32",
    "teacher.apart_weight=0",
    "teacher.learning_rate=3e-4",
    "teacher.candidates=random:3",
    "teacher.queries_per_step=4",
    "teacher.evaluations=0",
    "teacher.epochs=20",
    "distill.candidates=random:4",
    "distill.dev_queries=30",
)
"""What suits four minutes and 403 queries: few documents for each, no pause to measure on the way, and every step for
the answers. To read apart as well leaves 44 steps of 79, too few to learn to answer."""

_TEACHER_QUERIES = 16
"""A reranker reads all 72 skills for each of them, about four seconds; student and BM25 answer the whole test split."""

_SHOWN = 3
_SAMPLES = 3


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the model and the index are put.")
    ] = Path("rabtriever-demo"),
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="A base model: smollm2-135m, a folder, or a hub id.")
    ] = None,
    budget: Annotated[str, typer.Option(metavar="AMOUNT", help="Bounds stage I: 5m, or 200k tokens.")] = _BUDGET,
    json: Json = False,
) -> None:
    """Train, index, evaluate and search on the example data: a household robot's skills. About ten minutes."""
    kept = f"stopped; what was done so far is kept in {output}, and the same command again goes on from there"
    with session(json, interrupted=kept) as out:
        begin = time.perf_counter()
        from rabtriever.training.budget import Budget

        bound = Budget.parse(budget)
        settings = train_config(read_settings(None, list(_SETTINGS), base=base))
        from rabtriever.data import Dataset
        from rabtriever.evaluation import Bm25System, StudentSystem, TeacherSystem, evaluate
        from rabtriever.index import Index
        from rabtriever.reranker import Reranker
        from rabtriever.training.pipeline import train

        data, model = Dataset.example(), output / "model"
        out.progress.say(f"1/4 training on {len(data.split('train'))} situations and {len(data.corpus)} skills")
        trained = train(data, model, settings, budget=bound, progress=out.progress)
        out.progress.say("2/4 indexing the skills")
        index = Index.create(output / "index", trained.student, exist_ok=True)
        index.add(list(data.corpus.values()), progress=out.progress)
        out.progress.say("3/4 evaluating on situations and rationales that training has not seen")
        untrained = Reranker.from_pretrained(settings.base, prompt=settings.prompt)
        systems: dict[str, System] = {
            "student": StudentSystem(trained.student),
            "teacher": TeacherSystem(trained.student.reranker),
            "untrained": TeacherSystem(untrained, "untrained teacher"),
            "bm25": Bm25System(),
        }
        report = evaluate(systems, data, "test", teacher_limit=_TEACHER_QUERIES, progress=out.progress)
        out.progress.say("4/4 answering three of them")
        tests = data.split("test")
        samples = [
            _sample(index, query.text, {data.corpus[i].text for i in data.relevant("test", query.id)})
            for query in tests[:: max(1, len(tests) // _SAMPLES)][:_SAMPLES]
        ]
        seconds = time.perf_counter() - begin
        payload = {
            "model": model,
            "index": output / "index",
            "evaluation": report.to_dict(),
            "samples": samples,
            "seconds": seconds,
        }
        text = [report_text(report), *map(_sample_text, samples), _next_steps(output, seconds)]
        out.emit(payload, "\n\n".join(text))


def _sample(index: Index, query: str, right: set[str]) -> dict[str, Any]:
    """A query answered by the student alone and by the teacher reading the student's best."""
    return {
        "query": query,
        "right": sorted(right),
        "student": [_answer(hit) for hit in index.search(query, _SHOWN)],
        "teacher": [_answer(hit) for hit in index.search(query, _SHOWN, rerank=len(index))],
    }


def _answer(hit: Any) -> dict[str, Any]:
    return {"id": hit.id, "text": hit.text, "probability": hit.probability}


def _sample_text(sample: dict[str, Any]) -> str:
    lines = [f"“{one_line(sample['query'])}”", f"  right:   {one_line(', '.join(sample['right']))}"]
    for name in ("student", "teacher"):
        for place, hit in enumerate(sample[name]):
            label = f"{name}:" if place == 0 else ""
            mark = "  <- right" if hit["text"] in sample["right"] else ""
            lines.append(f"  {label:8} {100 * hit['probability']:5.1f} %  {one_line(hit['text'], 60)}{mark}")
    return "\n".join(lines)


def _next_steps(output: Path, seconds: float) -> str:
    model, index = shlex.quote(str(output / "model")), shlex.quote(str(output / "index"))
    return (
        f"all of it took {format_duration(seconds)}. Next:\n"
        f'  rabtriever search {index} "the cat knocked over my juice" --rerank 10\n'
        f"  rabtriever evaluate {model} example\n"
        f"  rabtriever train YOUR_DATASET -o YOUR_MODEL"
    )

"""``search`` and ``rerank``: find the right documents in an index or in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabtriever.cli.options import Json, ModelOfIndex
from rabtriever.cli.output import one_line, session
from rabtriever.cli.push import Name
from rabtriever.fusion import parse_hybrid

if TYPE_CHECKING:
    from rabtriever.data import Document
    from rabtriever.index import Hit, Index

__all__ = ["hit_lines", "rerank", "search"]


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is to be answered.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits to show.")] = 10,
    rerank: Annotated[int, typer.Option(metavar="N", min=0, help="Let the teacher order the N best anew.")] = 0,
    filter: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Which documents take part, as in \"room = 'kitchen'\".")
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Let BM25 take part in the order.")] = False,
    fusion: Annotated[
        str | None,
        typer.Option(metavar="WEIGHT|ranks", help="--hybrid with another weight of BM25 than 0.5, or by ranks."),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="The order of BM25 alone, to compare with.")] = False,
    threshold: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Show only hits of at least this probability.")
    ] = None,
    through: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ENGINE URL", help="Ask the engine that it was pushed to: qdrant, milvus or pgvector."),
    ] = None,
    name: Name = "rabtriever",
    model: ModelOfIndex = None,
    json: Json = False,
) -> None:
    """Answer a query from an index."""
    with session(json) as out:
        if through is not None:
            own = {"--rerank": rerank, "--filter": filter, "--hybrid": hybrid, "--fusion": fusion, "--bm25": bm25}
            hits = _search_through(index, query, k, through, name, model, [key for key, value in own.items() if value])
            hits = [hit for hit in hits if hit.probability >= (threshold or 0.0)]
        else:
            with _open(index, model) as opened:
                fused = hybrid if fusion is None else parse_hybrid(fusion)
                hits = opened.search(
                    query, k, rerank=rerank, filter=filter, hybrid=fused, bm25=bm25, threshold=threshold
                )
        out.emit({"query": query, "hits": [_hit_json(hit) for hit in hits]}, hit_lines(hits))


def _search_through(
    index: Path, query: str, k: int, through: tuple[str, str], name: str, model: str | None, own: list[str]
) -> list[Hit]:
    """The hits of the engine that an index was pushed to.

    Raises:
        InputError: An option is given that the index alone can answer, or the engine is unknown or not reached.
        MismatchError: The engine holds another model's vectors.
    """
    from rabtriever.errors import InputError

    if own:
        raise InputError(
            f"{own[0]} is answered by the index itself, not through {through[0]}",
            hint="leave --through out, or use the engine's own filters",
        )
    from rabtriever.compiled import load_student
    from rabtriever.index.description import Description
    from rabtriever.push import PushedIndex, checked_kind

    description = Description.read(index)
    kind = checked_kind(through[0])
    student = load_student(model or description.model_folder(index))
    description.check(student, index)
    with PushedIndex(kind, through[1], student, name=name) as pushed:
        return pushed.search(query, k)


def _open(index: Path, model: str | None) -> Index:
    """Open an index with its model; the two are loaded side by side where that helps."""
    from rabtriever.compiled import is_compiled, load_student
    from rabtriever.index.description import Description

    place = model or Description.read(index).model_folder(index)
    if is_compiled(place):
        # Its import is seconds of Python, and what a graph does meanwhile is not.
        Thread(target=import_module, args=("lancedb",), daemon=True).start()
    student = load_student(place)
    from rabtriever.index import Index

    return Index.open(index, student)


def rerank(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained model's folder, or a base model.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is to be answered.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Documents (as for index); '-' reads lines from stdin.")],
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many to show; all when left out.")] = None,
    json: Json = False,
) -> None:
    """Order a file's documents by how well they answer a query, the teacher reading each one with it."""
    with session(json) as out:
        from rabtriever.errors import InputError
        from rabtriever.index import Hit
        from rabtriever.index.corpus import Corpus

        documents = list(_lines_of_stdin() if str(file) == "-" else Corpus([str(file)]))
        from rabtriever.reranker import Reranker

        if not query.strip():
            raise InputError("the query is empty", hint="give the query as the second argument")
        teacher = Reranker.from_pretrained(model)
        scores = teacher.score_pairs([(query, document.content) for document in documents], out.progress)
        ranked = sorted(zip(documents, map(float, scores), strict=True), key=lambda found: -found[1])[:k]
        hits = [replace(Hit.of(document, score), stage="teacher") for document, score in ranked]
        out.emit({"query": query, "hits": [_hit_json(hit) for hit in hits]}, hit_lines(hits))


def hit_lines(hits: Sequence[Hit], width: int = 100) -> str:
    """Hits as numbered lines: the probability, the id, and the text or what of it fits.

    Example:
        >>> from rabtriever.index import Hit
        >>> print(hit_lines([Hit("sponge", 2.2, 0.9, "find a sponge", "", {})]))
         1.  90.0 %  sponge  find a sponge
    """
    if not hits:
        return "no documents"
    widest = max(len(one_line(hit.id, 24)) for hit in hits)
    return "\n".join(
        f"{place:2d}. {100 * hit.probability:5.1f} %  {one_line(hit.id, 24):{widest}}  "
        + one_line(f"{hit.title}: {hit.text}" if hit.title else hit.text, width)
        for place, hit in enumerate(hits, start=1)
    )


def _lines_of_stdin() -> Iterator[Document]:
    from rabtriever.data import Document
    from rabtriever.errors import DataError

    found = False
    for number, line in enumerate(sys.stdin.buffer.read().decode("utf-8", "replace").splitlines(), start=1):
        if line.strip():
            found = True
            yield Document(str(number), line.strip())
    if not found:
        raise DataError("stdin holds no documents", hint="write one document on each line")


def _hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "probability": hit.probability,
        "title": hit.title,
        "text": hit.text,
        "metadata": hit.metadata,
        "stage": hit.stage,
    }

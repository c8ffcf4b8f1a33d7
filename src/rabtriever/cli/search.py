"""``index``, ``search`` and ``rerank``: put documents into an index, and find the right ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabtriever.cli.options import Json, load_dataset
from rabtriever.cli.output import one_line, session

if TYPE_CHECKING:
    from rabtriever.data import Document
    from rabtriever.index import Hit

__all__ = ["hit_lines", "index", "rerank", "search"]


def index(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")],
    corpus: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS", help="Files (.jsonl, .csv, .tsv, .txt), dataset folders, or 'example'."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="INDEX", help="The index: new, or brought up to date.")
    ],
    json: Json = False,
) -> None:
    """Make an index of documents, or bring one up to date: only new and changed documents are encoded."""
    kept = f"stopped; the documents stored so far are kept in {output}, and the same command again goes on from there"
    with session(json, interrupted=kept) as out:
        documents = Corpus(corpus)  # read and checked before a model is loaded
        from rabtriever.index import Index
        from rabtriever.retriever import Retriever

        student = Retriever.from_pretrained(model)
        target = Index.create(output, student, exist_ok=True)
        counts = target.add(documents, progress=out.progress)
        payload = {
            "index": output,
            "documents": target.count,
            "added": counts.added,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
        }
        text = (
            f"{output}: {target.count:,} documents"
            f" ({counts.added:,} added, {counts.updated:,} updated, {counts.unchanged:,} unchanged)"
        )
        out.emit(payload, text)


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is to be answered.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits to show.")] = 10,
    rerank: Annotated[int, typer.Option(metavar="N", min=0, help="Let the teacher order the N best anew.")] = 0,
    filter: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Which documents take part, as in \"room = 'kitchen'\".")
    ] = None,
    json: Json = False,
) -> None:
    """Answer a query from an index."""
    with session(json) as out:
        from rabtriever.index import Index

        hits = Index.open(index).search(query, k, rerank=rerank, filter=filter)
        out.emit({"query": query, "hits": [_hit_json(hit) for hit in hits]}, hit_lines(hits))


def rerank(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained model's folder, or a base model.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is to be answered.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Documents (.jsonl, .csv, .tsv, .txt); '-' reads lines from stdin.")
    ],
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many to show; all when left out.")] = None,
    json: Json = False,
) -> None:
    """Order a file's documents by how well they answer a query, the teacher reading each one with it."""
    with session(json) as out:
        documents = list(_lines_of_stdin() if str(file) == "-" else Corpus([str(file)]))
        from rabtriever.errors import InputError
        from rabtriever.index import Hit
        from rabtriever.reranker import Reranker

        if not query.strip():
            raise InputError("the query is empty", hint="give the query as the second argument")
        teacher = Reranker.from_pretrained(model)
        scores = teacher.score_pairs([(query, document.content) for document in documents], out.progress)
        ranked = sorted(zip(documents, map(float, scores), strict=True), key=lambda found: -found[1])[:k]
        hits = [replace(Hit.of(document, score), stage="teacher") for document, score in ranked]
        out.emit({"query": query, "hits": [_hit_json(hit) for hit in hits]}, hit_lines(hits))


class Corpus:
    """The documents of several files, checked once from end to end and then read again as they are needed.

    Args:
        names: Files, dataset folders, or ``example``.

    Raises:
        DataError: If a file is missing or malformed, or two documents have the same id.

    Example:
        >>> len(Corpus(["example"])) > 60
        True
    """

    def __init__(self, names: Sequence[str]) -> None:
        from rabtriever.errors import DataError

        self._names = names
        seen: dict[str, str] = {}
        for name in names:
            for document in _read(name):
                if document.id in seen:
                    raise DataError(
                        f"{name}: the id {document.id!r} is in {seen[document.id]} already",
                        hint="give every document an id of its own (a .txt file's lines are numbered: use .jsonl)",
                    )
                seen[document.id] = name
        self._length = len(seen)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Document]:
        for name in self._names:
            yield from _read(name)


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


def _read(name: str) -> Iterator[Document]:
    from rabtriever.data import read_documents
    from rabtriever.errors import DataError

    if name == "example":
        return iter(load_dataset(name).corpus.values())
    path = Path(name)
    if not path.exists():
        raise DataError(f"{name} does not exist", hint="check the path")
    return read_documents(path / "corpus.jsonl" if path.is_dir() else path)


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

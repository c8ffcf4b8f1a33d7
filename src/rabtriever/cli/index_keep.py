"""What keeps an index in order: look into it, check and mend it, go back, make it small, move it to another model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabtriever.cli.options import Json, read_bytes
from rabtriever.cli.output import one_line, session

if TYPE_CHECKING:
    from rabtriever.data import Document

__all__ = [
    "accelerate",
    "check",
    "compact",
    "delete",
    "get",
    "list_documents",
    "reindex",
    "repair",
    "restore",
    "versions",
]

IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of documents.")]


def get(index: IndexFolder, ids: Ids, json: Json = False) -> None:
    """Show documents by their ids."""
    with session(json) as out:
        from rabtriever.index import Index

        with Index.open(index) as opened:
            found = [opened.get(id) for id in ids]
        text = "\n\n".join(f"{document.id}\n{document.content}" for document in found)
        out.emit({"documents": [_document(document) for document in found]}, text)


def list_documents(
    index: IndexFolder,
    filter: Annotated[str | None, typer.Option(metavar="EXPR", help="Only some, as in \"room = 'kitchen'\".")] = None,
    start: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="How many to list at most.")] = 20,
    json: Json = False,
) -> None:
    """List documents in the order in which they were written."""
    with session(json) as out:
        from rabtriever.index import Index

        with Index.open(index) as opened:
            found, total = list(opened.documents(filter, start, limit)), opened.count
        lines = [f"{one_line(document.id, 24)}  {one_line(document.content)}" for document in found]
        payload = {"total": total, "documents": [_document(document) for document in found]}
        out.emit(payload, "\n".join(lines) or "no documents")


def delete(index: IndexFolder, ids: Ids, json: Json = False) -> None:
    """Delete documents by their ids."""
    with session(json) as out:
        from rabtriever.index import Index

        with Index.open(index) as opened:
            deleted, left = opened.delete(ids), opened.count
        out.emit({"deleted": deleted, "documents": left}, f"{deleted:,} deleted, {left:,} left")


def check(index: IndexFolder, json: Json = False) -> None:
    """Verify every document and vector of an index against its checksum, and the cache."""
    with session(json) as out:
        from rabtriever.errors import DataError
        from rabtriever.index import Index

        with Index.open(index) as opened:
            report = opened.check()
        if not report.clean:
            first = report.problems[0].message
            more = len(report.problems) - 1
            raise DataError(
                first + (f" (and {more:,} more problems)" if more else ""),
                hint=f"rabtriever repair {index}",
                code="damaged",
            )
        payload = {"clean": True, "documents": report.documents, "version": report.version, "cache": report.cache}
        out.emit(payload, f"{index}: {report.documents:,} documents, nothing is wrong (cache: {report.cache})")


def repair(index: IndexFolder, json: Json = False) -> None:
    """Mend an index: encode again what can be, take out what cannot, go back to a version that can be read."""
    with session(json, interrupted="stopped; run the same command again") as out:
        from rabtriever.index import Index

        done = Index.repair(index)
        payload = {
            "encoded": done.encoded,
            "removed": done.removed,
            "kept_in": done.kept_in,
            "versions_left_behind": done.rolled_back,
            "restored": done.restored,
        }
        lines = [
            f"{len(done.encoded):,} encoded again, {len(done.removed):,} taken out",
            *(f"  {one_line(id)}" for id in done.removed),
        ]
        if done.restored:
            lines.append(f"restored from copies: {', '.join(done.restored)}")
        if done.kept_in is not None:
            lines.append(f"what could be read of them is in {done.kept_in}; index them again")
        if done.rolled_back:
            lines.append(f"{done.rolled_back} versions could not be read: index the newest documents again")
        out.emit(payload, "\n".join(lines))


def versions(index: IndexFolder, json: Json = False) -> None:
    """List the versions of an index that are kept."""
    with session(json) as out:
        from rabtriever.index import Index

        with Index.open(index) as opened:
            found = opened.versions()
        payload = {"versions": [{"number": one.number, "time": one.time.isoformat()} for one in found]}
        out.emit(payload, "\n".join(f"{one.number:6d}  {one.time:%Y-%m-%d %H:%M:%S}" for one in found))


def restore(
    index: IndexFolder,
    version: Annotated[int, typer.Argument(min=1, help="A number that `versions` lists.")],
    json: Json = False,
) -> None:
    """Make an earlier version of an index the newest one."""
    with session(json) as out:
        from rabtriever.index import Index

        with Index.open(index) as opened:
            number, count = opened.restore(version), opened.count
        text = f"{index}: version {version} is the newest again, as version {number}, with {count:,} documents"
        out.emit({"version": number, "documents": count}, text)


def compact(index: IndexFolder, json: Json = False) -> None:
    """Merge an index's files and remove the versions that nobody reads: they cannot be restored then."""
    with session(json) as out:
        from rabtriever.files import human_bytes
        from rabtriever.index import Index

        with Index.open(index) as opened:
            done = opened.compact()
        payload = {"versions": done.versions, "bytes_before": done.bytes_before, "bytes_after": done.bytes_after}
        before, after = human_bytes(done.bytes_before), human_bytes(done.bytes_after)
        out.emit(payload, f"{index}: {before} before, {after} now; {done.versions} version(s) kept")


def accelerate(
    index: IndexFolder,
    fast: Annotated[
        str | None,
        typer.Option(metavar="QUERIES", help="Try codes of single bits, made for queries like those of this file."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most that the scan's codes may take of the memory, as in 500MB."),
    ] = None,
    json: Json = False,
) -> None:
    """Build an index's cache: quicker to open and, with faiss, to search."""
    with session(json, interrupted="stopped; the index is as it was") as out:
        from rabtriever.index import Index
        from rabtriever.index.corpus import Corpus

        with Index.open(index) as opened:
            queries = None if fast is None else [query.content for query in Corpus([fast])]
            most = None if memory is None else read_bytes("--memory", memory)
            header = opened.accelerate(queries, fast=fast is not None, memory=most)
        payload = {
            "documents": header.documents,
            "codes": header.codes,
            "recall": header.recall,
            "bits_recall": header.bits_recall,
        }
        how = f"a scan of {header.codes} codes finds {header.recall:.1%}" if header.codes else "searched exactly"
        if header.bits_recall is not None and header.codes != "rabitq":
            how += f" (single bits would find {header.bits_recall:.1%})"
        out.emit(payload, f"{index}: {header.documents:,} documents cached, {how}")


def reindex(
    index: IndexFolder,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The trained model to move to.")],
    json: Json = False,
) -> None:
    """Move an index to another model, beside its use: all documents are encoded, then the two are swapped.

    Where the two read documents alike, as trainings of the query side alone do, the vectors stay, and it moves at once.
    """
    kept = f"stopped; {index} is as it was, and the same command again goes on from what is encoded"
    with session(json, interrupted=kept) as out:
        from rabtriever.compiled import load_student
        from rabtriever.index import Index

        with Index.open(index) as opened:
            opened.reindex(load_student(model), out.progress)
            out.emit({"index": index, "documents": opened.count}, f"{index}: {opened.count:,} documents, with {model}")


def _document(document: Document) -> dict[str, Any]:
    return {"id": document.id, "title": document.title, "text": document.text, "metadata": document.metadata}

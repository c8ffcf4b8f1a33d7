"""``index``: put documents into an index, or bring one up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rabtriever.cli.options import Json
from rabtriever.cli.output import session

if TYPE_CHECKING:
    from rabtriever.index.protocol import Encoder
    from rabtriever.index.rows import Numbers

__all__ = ["DType", "OnError", "index"]

_BATCH, _WINDOW = 256, 16


class OnError(StrEnum):
    """What to do at a bad line."""

    STOP = "stop"
    SKIP = "skip"


class DType(StrEnum):
    """How vectors are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@contextmanager
def _reading(student: Encoder, cluster: str | None) -> Iterator[tuple[Encoder, int, int]]:
    """Who encodes, how many documents are committed together, and how many times as many are read ahead."""
    if cluster is None:
        yield student, _BATCH, _WINDOW
        return
    from rabtriever.cluster import ClusterStudent

    with ClusterStudent(student, cluster) as workers:
        yield workers, workers.batch_size, 1


def index(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained model's folder or name, or what it was exported to.")
    ],
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS",
            help="Files (.jsonl, .csv, .tsv, .txt, .parquet), dataset folders, folders of text files, or 'example'.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="INDEX", help="The index: new, or brought up to date.")
    ],
    on_error: Annotated[
        OnError, typer.Option(help="At a bad line: stop before anything is written, or skip it and write it down.")
    ] = OnError.STOP,
    passages: Annotated[
        int | None,
        typer.Option(metavar="N", min=20, help="Cut documents of more than N characters into passages that overlap."),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(help="How a new index stores vectors: float32 (the default), or float16, which takes half."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Let a Ray cluster encode: its head's address, 'auto', or 'local'."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an index of documents, or bring one up to date: only new and changed documents are encoded."""
    kept = f"stopped; the documents stored so far are kept in {output}, and the same command again goes on from there"
    with session(json, interrupted=kept) as out:
        from rabtriever.index.corpus import Corpus

        documents = Corpus(corpus, on_error.value)  # read and checked before a model is loaded
        from rabtriever.compiled import load_student
        from rabtriever.index import Index, Passages, wants_cache

        how = None if passages is None else Passages(characters=passages, overlap=passages // 10)
        numbers: Numbers | None = None if dtype is None else dtype.value
        with (
            _reading(load_student(model), ray) as (student, size, window),
            Index.create(output, student, exist_ok=True, passages=how, dtype=numbers) as target,
        ):
            counts = target.add(documents, batch_size=size, window=window, progress=out.progress)
            count = target.count
            if wants_cache(target):
                out.progress.say("building the cache")
                target.accelerate()
        payload = {
            "index": output,
            "documents": count,
            "added": counts.added,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
            "skipped": len(documents.skipped),
        }
        text = (
            f"{output}: {count:,} documents"
            f" ({counts.added:,} added, {counts.updated:,} updated, {counts.unchanged:,} unchanged)"
        )
        if documents.skipped:
            place = output / "skipped.jsonl"
            documents.write_skipped(place)
            payload["skipped_in"] = place
            text += f"\n{len(documents.skipped):,} skipped: see {place}"
        out.emit(payload, text)

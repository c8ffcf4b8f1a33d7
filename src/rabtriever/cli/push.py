"""``push``: an index in the engine that is run already."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rabtriever.cli.options import Json
from rabtriever.cli.output import session

__all__ = ["Engine", "Name", "push"]


class Engine(StrEnum):
    """Where to."""

    QDRANT = "qdrant"
    MILVUS = "milvus"
    PGVECTOR = "pgvector"


Name = Annotated[str, typer.Option(help="The collection, or table, in the engine.")]


def push(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")],
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="http://localhost:6333 or a folder (Qdrant), http://localhost:19530 or a .db file (Milvus),"
            " postgresql://USER@HOST/DATABASE (pgvector).",
        ),
    ],
    to: Annotated[Engine, typer.Option("--to", help="The engine.")],
    name: Name = "rabtriever",
    json: Json = False,
) -> None:
    """Bring another engine to what an index holds: vectors, texts and metadata; only changes are sent."""
    with session(json, interrupted="stopped; the same command again goes on from there") as out:
        from rabtriever.push import push as push_index
        from rabtriever.push.engine import shown

        done = push_index(index, to.value, url, name=name, progress=out.progress)
        payload = {
            "index": index,
            "engine": to.value,
            "name": name,
            "written": done.written,
            "unchanged": done.unchanged,
            "deleted": done.deleted,
            "cut": done.cut,
        }
        text = (
            f"{to.value} at {shown(url)}, {name}: {done.written:,} vectors written,"
            f" {done.unchanged:,} unchanged, {done.deleted:,} deleted"
        )
        if done.cut:
            text += f"\n{done.cut:,} texts are longer than it can hold, and end early there"
        out.emit(payload, text)

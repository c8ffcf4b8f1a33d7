"""``export``: a model or an index as files that other libraries read without this package."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rabtriever.cli.options import Json
from rabtriever.cli.output import session

__all__ = ["Format", "export"]


class Format(StrEnum):
    """What to write."""

    SENTENCE_TRANSFORMERS = "sentence-transformers"
    CROSS_ENCODER = "cross-encoder"


def export(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; a former export is replaced.")],
    to: Annotated[
        Format,
        typer.Option("--to", help="The student for SentenceTransformer, or the teacher for CrossEncoder."),
    ],
    json: Json = False,
) -> None:
    """Write a model for use without this package, and check that it gives the same numbers there."""
    with session(json) as out:
        from rabtriever.export import export_cross_encoder, export_sentence_transformers

        make = export_sentence_transformers if to is Format.SENTENCE_TRANSFORMERS else export_cross_encoder
        report = make(source, output)
        measured = ", ".join(f"{what} {worst:.1e}" for what, worst in report.differences.items())
        lines = [f"{output}: {to.value}; largest difference, of the largest number: {measured}", *report.notes]
        out.emit(report.as_dict(), "\n".join(lines))

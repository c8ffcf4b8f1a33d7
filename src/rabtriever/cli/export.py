"""``export``: a model or an index as files that other libraries read without this package."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rabtriever.cli.options import Json
from rabtriever.cli.output import session
from rabtriever.files import human_bytes

__all__ = ["Format", "export"]


class Format(StrEnum):
    """What to write."""

    SENTENCE_TRANSFORMERS = "sentence-transformers"
    CROSS_ENCODER = "cross-encoder"
    ONNX = "onnx"
    OPENVINO = "openvino"
    PARQUET = "parquet"


def export(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A model's folder; for parquet, an index's.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="What to write; a former export is replaced.")],
    to: Annotated[
        Format,
        typer.Option(
            "--to",
            help="A student for SentenceTransformer, ONNX Runtime or OpenVINO, its teacher for CrossEncoder, "
            "or an index's vectors.",
        ),
    ],
    json: Json = False,
) -> None:
    """Write a model or an index for use without this package; a model is checked to give the same numbers there."""
    with session(json) as out:
        from rabtriever.export import export_cross_encoder, export_graph, export_parquet, export_sentence_transformers

        if to is Format.PARQUET:
            report = export_parquet(source, output, out.progress)
        elif to in (Format.ONNX, Format.OPENVINO):
            report = export_graph(source, output, "onnx" if to is Format.ONNX else "openvino")
        else:
            make = export_sentence_transformers if to is Format.SENTENCE_TRANSFORMERS else export_cross_encoder
            report = make(source, output)
        lines = [f"{output}: {to.value}, {human_bytes(report.bytes)}"]
        if report.differences:
            measured = ", ".join(f"{what} {worst:.1e}" for what, worst in report.differences.items())
            lines.append(f"largest difference, of the largest number: {measured}")
        if report.milliseconds is not None:
            here, there = (report.milliseconds[name] for name in ("rabtriever", "export"))
            lines.append(f"one query in float32: {there:.0f} ms; by Rabtriever itself {here:.0f} ms")
        out.emit(report.as_dict(), "\n".join([*lines, *report.notes]))

"""``serve``: an index as an HTTP API, with a page to try it on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rabtriever.cli.options import Json, ModelOfIndex
from rabtriever.cli.output import session

__all__ = ["Computing", "serve"]


class Computing(StrEnum):
    """A number format, or the best that the processor multiplies natively."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def serve(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine need --keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8000,
    model: ModelOfIndex = None,
    rerank_with: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Rerank with this model in place of the index's own teacher.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys: a line for each, `read NAME KEY` or `write NAME KEY`."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A web page's origin that may call the API; may be repeated."),
    ] = None,
    rate: Annotated[
        int, typer.Option(metavar="N", min=0, help="Requests a minute from each key or address; 0 for any number.")
    ] = 0,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="When a request is given up.")] = 30.0,
    rationales: Annotated[
        bool,
        typer.Option("--rationales", help="Let the teacher's base model, a chat model, say in words why (slow)."),
    ] = False,
    dtype: Annotated[
        Computing,
        typer.Option(help="What the models compute in; float32 gives the same to the last digit in any batch."),
    ] = Computing.AUTO,
    json: Json = False,
) -> None:
    """Serve an index over HTTP, with a page to try it on."""
    with session(json) as out:
        from rabtriever.errors import InputError
        from rabtriever.serving.access import Keys
        from rabtriever.serving.logs import log_to_stderr
        from rabtriever.serving.run import LOOPBACK_NAMES, is_loopback, listen
        from rabtriever.serving.run import serve as run
        from rabtriever.serving.settings import Limits, Settings

        if keys is None and not is_loopback(host):
            raise InputError(
                f"{host} is reached from other machines, and no API keys are given",
                hint="give --keys FILE, or serve on 127.0.0.1",
            )
        settings = Settings(
            keys=None if keys is None else Keys.read(keys),
            origins=tuple(cors or ()),
            hosts=LOOPBACK_NAMES if keys is None else None,
            limits=Limits(seconds=timeout, per_minute=rate),
        )
        place = listen(host, port)
        from rabtriever.compiled import load_student
        from rabtriever.reranker import Reranker
        from rabtriever.serving.service import Service

        log_to_stderr()
        teacher = None if rerank_with is None else Reranker.from_pretrained(rerank_with, dtype=dtype.value)
        name = None if rerank_with is None else Path(rerank_with).name
        student = None if model is None else load_student(model, dtype=dtype.value)
        with (
            place,
            Service(index, student, teacher, name, settings.limits, dtype.value, rationales) as service,
        ):
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{place.getsockname()[1]}"
            documents = service.index.count
            payload = {"url": url, "index": index, "documents": documents}
            text = f"{index}: {documents:,} documents at {url} (Ctrl-C stops it)"
            run(service, settings, place, lambda: out.emit(payload, text))

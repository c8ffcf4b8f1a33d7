"""The command line's frame: the verbs, and what happens before and after each."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from rabtriever import __version__
from rabtriever.cli import demo, evaluate, export, index, index_keep, info, mcp, push, search, serve, train
from rabtriever.cli.failures import describe
from rabtriever.cli.output import to_json, write

__all__ = ["app", "run"]

app = typer.Typer(
    name="rabtriever",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rabtriever {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Rationale-based retrieval: teach a language model to rerank, distil it into a retriever, index and search."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for panel, verbs in {
    "Start": (demo.demo,),
    "Learn": (train.train, train.distill, evaluate.evaluate),
    "Search": (index.index, search.search, search.rerank, mcp.mcp),
    "Keep an index": (
        index_keep.get,
        index_keep.list_documents,
        index_keep.delete,
        index_keep.check,
        index_keep.repair,
        index_keep.versions,
        index_keep.restore,
        index_keep.compact,
        index_keep.accelerate,
        index_keep.reindex,
    ),
    "Take along": (export.export, push.push, serve.serve),
    "Look": (info.info,),
}.items():
    for verb in verbs:
        app.command(verb.__name__.partition("_")[0], rich_help_panel=panel)(verb)


def run(argv: list[str]) -> int:
    """Run one command line; nothing escapes but an exit code (RABTRIEVER_DEBUG=1 lets the traceback through).

    Example:
        >>> run(["--version"])
        rabtriever ...
        0
    """
    as_json = "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
    debug = os.environ.get("RABTRIEVER_DEBUG") == "1"
    with warnings.catch_warnings():
        _quieten(debug)
        try:
            return _call(argv)
        except BaseException as error:
            if debug:
                raise
            failure = describe(error)
            text, stream = (to_json(failure.as_dict()), sys.stdout) if as_json else (failure.as_text(), sys.stderr)
            with suppress(OSError):  # where even the error cannot be written, the exit code has to do
                write(text, stream)
            return failure.exit_code


def _call(argv: list[str]) -> int:
    """Hand over to typer; its ways of ending become an exit code or an exception."""
    try:
        code = typer.main.get_command(app).main(args=argv, prog_name="rabtriever", standalone_mode=False)
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        return 0  # the reader of --help has gone; a command's own broken pipes do not get here
    if code == 130:  # newer typers' form of Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _quieten(debug: bool) -> None:
    """Keep other libraries' warnings and telemetry out, and their bars off logs."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not debug:
        warnings.filterwarnings("ignore")

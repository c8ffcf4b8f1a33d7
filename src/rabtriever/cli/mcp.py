"""``mcp``: let language-model applications search an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rabtriever.cli.output import session

__all__ = ["mcp"]


def mcp(index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index's folder.")]) -> None:
    """Serve an index to language-model applications, by the Model Context Protocol on stdin and stdout.

    The tools are search and add_documents. The application starts this command itself and stops it; stdout is the
    protocol's, so there is no --json.
    """
    with session(as_json=False, interrupted="stopped"):
        from rabtriever.index import Index
        from rabtriever.integrations.mcp import mcp_server

        opened = Index.open(index)
        _ = opened.student  # a model that is missing is told now, not at the first call
    with opened:
        mcp_server(opened).run("stdio")

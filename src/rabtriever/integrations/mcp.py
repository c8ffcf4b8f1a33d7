"""A server of the Model Context Protocol: language-model applications search an index and add to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from rabtriever import __version__
from rabtriever.errors import InputError
from rabtriever.index import Index
from rabtriever.integrations import missing_package

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp_types import ToolAnnotations
except ModuleNotFoundError as error:
    raise missing_package("mcp", "mcp", "mcp") from error

__all__ = ["mcp_server"]

_MOST = 100
"""Hits that one call may ask for: a language model has to read them all."""


class NewDocument(BaseModel):
    """A document to store."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="Identifies the document; one that is stored under this id is replaced.")
    text: str = Field(description="The document's text.")
    title: str = Field(default="", description="Its title, if it has one.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="What filters may ask for.")


class FoundDocument(TypedDict):
    """A document that answers the query."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    score: float
    probability: float


class Found(TypedDict):
    """The documents that answer the query best, best first."""

    query: str
    hits: list[FoundDocument]


class Added(TypedDict):
    """What became of the documents given, and how many the index holds now."""

    added: int
    updated: int
    unchanged: int
    documents: int


class _Tools:
    """The tools, each of which is called in a thread of its own."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._writing = Lock()

    def search(
        self,
        query: Annotated[str, Field(description="The situation, question or claim to be answered, in plain words.")],
        k: Annotated[int, Field(ge=1, le=_MOST, description="How many documents to find.")] = 10,
        rerank: Annotated[
            int, Field(ge=0, le=_MOST, description="How many of them a slower, better model reads again.")
        ] = 0,
        filter: Annotated[
            str | None, Field(description="Which documents take part, by metadata, as in: room = 'kitchen'")
        ] = None,
    ) -> Found:
        """Find the documents that answer a query best, also where they share no words with it."""
        with _told():
            with self._writing:
                self._index.refresh()  # others may have written meanwhile
            hits = self._index.search(query, k, rerank=rerank, filter=filter)
        return {
            "query": query,
            "hits": [
                {
                    "id": hit.id,
                    "title": hit.title,
                    "text": hit.text,
                    "metadata": dict(hit.metadata),
                    "score": hit.score,
                    "probability": hit.probability,
                }
                for hit in hits
            ],
        }

    def add_documents(self, documents: list[NewDocument]) -> Added:
        """Store documents: all of them or, where one is malformed, none. Those whose id is known are replaced."""
        with _told(), self._writing:
            counts = self._index.upsert([document.model_dump() for document in documents])
            return {
                "added": counts.added,
                "updated": counts.updated,
                "unchanged": counts.unchanged,
                "documents": self._index.count,
            }


def mcp_server(index: Index) -> MCPServer:
    """A server with the tools ``search`` and ``add_documents``; ``.run("stdio")`` serves until stdin closes.

    Example:
        >>> from rabtriever import Index                         # doctest: +SKIP
        >>> mcp_server(Index.open("my-index")).run("stdio")      # doctest: +SKIP
    """
    server = MCPServer("rabtriever", version=__version__, log_level="WARNING")
    tools = _Tools(index)
    server.add_tool(tools.search, annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    server.add_tool(
        tools.add_documents,
        annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    return server


@contextmanager
def _told() -> Iterator[None]:
    """Hand what the caller can mend to the caller, in the words of the error."""
    try:
        yield
    except InputError as error:
        raise ToolError(str(error)) from error

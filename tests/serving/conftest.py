"""An index of numbered documents behind an application, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.doubles import numbered
from rabtriever.index import Index
from rabtriever.serving import Service, Settings, create_app
from serving.doubles import Student
from serving.server import Running, double, started

Make = Callable[..., TestClient]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index; tests that write copy it."""
    folder = tmp_path_factory.mktemp("serving") / "index"
    with Index.create(folder, Student()) as index:
        index.add(numbered(0, 40))
    return folder


@pytest.fixture
def make(stored: Path) -> Iterator[Make]:
    """Makes a client of an application over an index."""
    clients: list[TestClient] = []

    def client(
        settings: Settings | None = None, student: Any = None, path: Path = stored, **options: Any
    ) -> TestClient:
        settings = settings or Settings()
        service = Service(path, student or Student(), limits=settings.limits)
        made = TestClient(create_app(service, settings), raise_server_exceptions=False, **options)
        made.__enter__()
        clients.append(made)
        return made

    yield client
    for one in clients:
        one.__exit__(None, None, None)


@pytest.fixture(scope="session")
def server(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that was really started, over an index of its own that anything may be written to."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(stored, folder / "index")
    with started(double(folder / "index"), folder / "log") as running:
        yield running


@pytest.fixture
def client(make: Make) -> TestClient:
    return make()


@pytest.fixture
def error() -> Callable[[Any], dict[str, str]]:
    """The error object of a response, complete."""

    def read(response: Any) -> dict[str, str]:
        body = response.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "hint"}
        found: dict[str, str] = body["error"]
        return found

    return read

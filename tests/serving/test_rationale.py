"""Rationales over HTTP: asked for one document at a time, and only where the server was told to write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rabtriever import Index, InputError, Retriever
from rabtriever.rationale import RationaleWriter
from rabtriever.serving import Service, create_app
from serving.conftest import Make
from serving.doubles import Student
from tiny_student import save_tiny_student
from toy_data import NEEDS, TOOLS


@pytest.fixture
def student(tiny_folder: Callable[..., Path], tmp_path: Path) -> Retriever:
    return Retriever.from_pretrained(save_tiny_student(tiny_folder("llama"), tmp_path / "model"), dtype="float32")


@pytest.fixture
def client(student: Retriever, tmp_path: Path) -> Iterator[TestClient]:
    with Index.create(tmp_path / "index", student) as index:
        index.add([{"_id": tool, "text": f"take the {tool}"} for tool in TOOLS])
    service = Service(tmp_path / "index", student, dtype="float32", rationales=True)
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client


def test_a_rationale_explains_the_teachers_verdict(client: TestClient, student: Retriever) -> None:
    assert client.get("/ready").json()["rationales"] is True
    writer = RationaleWriter(student.reranker, "float32")
    for tool in TOOLS:
        answer = client.post("/v1/rationale", json={"query": NEEDS[0], "id": tool}).json()
        (probability,) = student.reranker.predict_proba(NEEDS[0], [f"take the {tool}"])
        assert answer["probability"] == pytest.approx(float(probability), abs=1e-5)
        assert answer["rationale"] == writer.write(NEEDS[0], f"take the {tool}", fits=bool(probability >= 0.5))
        assert answer["generated_by"] == Path(student.reranker.base.name).name  # type: ignore[union-attr]


def test_what_is_wrong_with_a_request(client: TestClient, error: Callable[[Any], dict[str, str]]) -> None:
    missing = client.post("/v1/rationale", json={"query": "x", "id": "none"})
    assert (missing.status_code, error(missing)["code"]) == (404, "unknown_document")
    for body in ({"query": "x"}, {"query": "", "id": "sponge"}, {"query": "x", "id": "sponge", "more": 1}):
        assert client.post("/v1/rationale", json=body).status_code == 422


def test_they_are_off_unless_asked_for(make: Make, stored: Path, error: Callable[[Any], dict[str, str]]) -> None:
    client = make()
    assert client.get("/ready").json()["rationales"] is False
    refused = client.post("/v1/rationale", json={"query": "x", "id": "d1"})
    assert (refused.status_code, error(refused)["code"]) == (404, "no_rationales")
    assert "--rationales" in error(refused)["hint"]
    with pytest.raises(InputError, match="an exported student does not bring"):
        Service(stored, Student(), rationales=True)

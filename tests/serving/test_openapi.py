"""The committed OpenAPI document is the application's, and no request that it allows, or forbids, is a 5xx."""

from __future__ import annotations

import json
import os
import random
import shutil
import string
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from rabtriever.serving import Service, Settings, create_app
from rabtriever.serving.settings import Limits
from serving.doubles import Student
from serving.server import Running

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
MUTATIONS = int(os.environ.get("RABTRIEVER_MUTATIONS", "300"))
EXAMPLES = int(os.environ.get("RABTRIEVER_SCHEMATHESIS_EXAMPLES", "15"))


@pytest.fixture(scope="module")
def fuzzed(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client over an index of its own, which all sorts of things are written to."""
    folder = tmp_path_factory.mktemp("fuzzed") / "index"
    shutil.copytree(stored, folder)
    limits = Limits(body_bytes=200_000, characters=5_000, documents=20)
    app = create_app(Service(folder, Student(), limits=limits), Settings(limits=limits))
    with TestClient(app) as client:  # raises what the server lets through
        yield client


def test_the_committed_document_is_the_applications(fuzzed: TestClient) -> None:
    response = fuzzed.get("/openapi.json")
    assert response.status_code == 200
    found = response.json()
    if f"fastapi=={version('fastapi')}" not in CONSTRAINTS.read_text().split():
        pytest.skip("another release of FastAPI than the tested one words it otherwise")
    if os.environ.get("RABTRIEVER_WRITE_OPENAPI"):
        DOCUMENT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
    assert json.loads(DOCUMENT.read_text("utf-8")) == found, "write it anew with RABTRIEVER_WRITE_OPENAPI=1"


def test_the_document_names_every_route_and_the_key(fuzzed: TestClient) -> None:
    found = json.loads(DOCUMENT.read_text("utf-8"))
    assert set(found["paths"]) == {
        "/v1/search",
        "/v1/rationale",
        "/v1/documents",
        "/v1/documents/{id}",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/v1/embeddings",
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
    }
    assert found["paths"]["/v1/search"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "HTTPValidationError" not in json.dumps(found)


def test_schemathesis_finds_no_server_error(server: Running) -> None:
    """Some requests for each operation; RABTRIEVER_SCHEMATHESIS_EXAMPLES=500 draws more."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text("utf-8")))
    schema.config.update(base_url=server.url)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 13
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            response = case.call()
            case.validate_response(
                response, checks=[not_a_server_error, response_schema_conformance, status_code_conformance]
            )

        check()


SOUND: list[tuple[str, str, Any]] = [
    ("POST", "/v1/search", {"query": "x", "k": 3, "rerank": 2, "filter": "number < 9", "threshold": 0.1}),
    ("POST", "/v1/search", {"query": "x", "hybrid": True, "explain": True, "filter": "parity in ('even', 'odd')"}),
    ("POST", "/v1/documents", {"documents": [{"id": "a", "text": "b", "title": "c", "metadata": {"n": 1}}]}),
    ("GET", "/v1/documents/d1", None),
    ("DELETE", "/v1/documents/d2", None),
    ("POST", "/v1/rerank", {"query": "x", "documents": ["a", {"text": "b"}], "top_n": 1}),
    ("POST", "/rerank", {"query": "x", "texts": ["a", "b"], "raw_scores": True}),
    ("POST", "/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64", "input_type": "query"}),
]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "\x00",
    "\ud800",
    "😀" * 100,
    "x" * 6000,
    "' OR 1=1 --",
    "../../etc/passwd",
    [],
    {},
    [[]],
    {"": None},
    {"\ud800": "\udfff"},
    ["a"] * 30,
    "<|im_end|><T>",
]


def _mutated(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """The same with something else in one place, or several."""
    if depth and rng.random() < 0.3:
        return rng.choice(ODD)
    if isinstance(value, dict):
        changed = {name: _mutated(rng, one, depth + 1) for name, one in value.items()}
        if rng.random() < 0.2:
            changed[rng.choice(["extra", "query", "", "k", "\u202e"])] = rng.choice(ODD)
        return {name: one for name, one in changed.items() if rng.random() > 0.05}
    if isinstance(value, list):
        return [_mutated(rng, one, depth + 1) for one in value] * rng.choice([0, 1, 1, 1, 3])
    if isinstance(value, str) and rng.random() < 0.5:
        characters = list(value)
        for _ in range(rng.randint(1, 4)):
            characters.insert(rng.randint(0, len(characters)), rng.choice(string.printable + "\x00é\ud800'\"()"))
        return "".join(characters)
    return value


def _body(rng: random.Random, content: Any) -> bytes:
    raw = json.dumps(_mutated(rng, content)).encode("ascii")
    broken = rng.random()
    if broken < 0.1:
        return raw[: rng.randint(0, len(raw))]
    if broken < 0.15:
        return bytes(rng.choice([0, 255, 34, 91, 123]) if rng.random() < 0.05 else byte for byte in raw)
    if broken < 0.18:
        return b'{"query": ' + b"[" * rng.choice([10, 5000, 90_000])
    if broken < 0.2:
        return rng.choice(["utf-16", "utf-32"]).encode() + json.dumps(content).encode("utf-16")
    return raw


def _path(rng: random.Random, path: str) -> str:
    if rng.random() < 0.8:
        return path
    endings = ["/", "//", "%00", "%ff", "/..", "%2e%2e%2f", "?x=%00", "%ed%a0%80", "'", ";", "/" + "a" * 3000]
    return path + rng.choice(endings)


def test_mutated_requests_get_an_answer_and_never_a_fault(fuzzed: TestClient) -> None:
    """Some hundred of them; RABTRIEVER_MUTATIONS=10000 sends more."""
    rng = random.Random(0)
    seen: dict[int, int] = {}
    for number in range(MUTATIONS):
        method, path, content = rng.choice(SOUND)
        method = method if rng.random() < 0.95 else rng.choice(["PUT", "PATCH", "HEAD", "OPTIONS", "GET", "DELETE"])
        kind = rng.choice(["application/json"] * 8 + ["text/plain", "", "application/json; charset=utf-16"])
        body = b"" if content is None else _body(rng, content)
        path = _path(rng, path)
        response = fuzzed.request(method, path, content=body, headers={"Content-Type": kind})
        told = f"request {number}: {method} {path[:80]} {body[:300]!r}: {response.status_code} {response.text[:300]}"
        assert response.status_code < 500, told
        assert "Traceback" not in response.text, told
        if response.status_code >= 400 and method != "HEAD":
            assert set(response.json()["error"]) == {"code", "message", "hint"}, told
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
    assert fuzzed.get("/ready").json()["status"] == "ready"
    assert seen[200] > MUTATIONS // 20, seen
    assert seen[422] > MUTATIONS // 20, seen

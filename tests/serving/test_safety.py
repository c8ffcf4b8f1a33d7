"""Keys, host names, other pages' origins, rates, and what a key's file may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rabtriever.errors import InputError
from rabtriever.serving import Settings
from rabtriever.serving.access import Keys
from rabtriever.serving.settings import Limits

READ, WRITE = "r" * 20, "w" * 20
SEARCH: dict[str, Any] = {"method": "POST", "url": "/v1/search", "json": {"query": "x", "k": 1}}
STORE: dict[str, Any] = {"method": "POST", "url": "/v1/documents", "json": {"documents": []}}


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(make: Any) -> TestClient:
    client: TestClient = make(Settings(keys=Keys([("reader", "read", READ), ("writer", "write", WRITE)])))
    return client


@pytest.mark.parametrize(
    ("request_", "headers", "status", "code"),
    [
        (SEARCH, {}, 401, "no_key"),
        (SEARCH, _bearer("x" * 20), 401, "unknown_key"),
        (SEARCH, {"Authorization": f"Basic {READ}"}, 401, "unknown_key"),
        (SEARCH, _bearer(READ), 200, ""),
        (SEARCH, _bearer(WRITE), 200, ""),
        (STORE, _bearer(READ), 403, "read_only"),
        (STORE, _bearer(WRITE), 422, "invalid"),
        ({"method": "DELETE", "url": "/v1/documents/d1"}, _bearer(READ), 403, "read_only"),
        ({"method": "DELETE", "url": "/v1/documents/nothing"}, _bearer(WRITE), 404, "unknown_document"),
        ({"method": "GET", "url": "/v1/documents/d1"}, _bearer(READ), 200, ""),
        ({"method": "POST", "url": "/v1/documents/"}, _bearer(READ), 403, "read_only"),
        ({"method": "GET", "url": "/metrics"}, {}, 401, "no_key"),
        ({"method": "GET", "url": "/nowhere"}, {}, 401, "no_key"),
        ({"method": "GET", "url": "/health"}, {}, 200, ""),
        ({"method": "GET", "url": "/ready"}, {}, 200, ""),
        ({"method": "GET", "url": "/"}, {}, 200, ""),
    ],
)
def test_keys_open_what_they_are_for(
    guarded: TestClient,
    error: Callable[..., Any],
    request_: dict[str, Any],
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    response = guarded.request(**request_, headers=headers)
    assert response.status_code == status
    if code:
        assert error(response)["code"] == code


def test_no_key_no_reading_of_the_body(make: Any, error: Callable[..., Any]) -> None:
    client = make(Settings(keys=Keys([("reader", "read", READ)]), limits=Limits(body_bytes=10)))
    response = client.post("/v1/search", content=b"x" * 100)
    assert error(response)["code"] == "no_key"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("read a", "keys:1: expected"),
        ("\n# all\nadmin a 0123456789abcdef", "keys:3: expected"),
        ("read a short", "has 5 characters"),
        ("read a 0123456789abcdef\nwrite b 0123456789abcdef", "the API key of b is there twice"),
        ("# none", "no API key"),
    ],
)
def test_a_file_of_keys_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Keys.read(tmp_path / "keys")
    assert "0123456789abcdef" not in str(caught.value)


def test_another_host_name_is_refused(make: Any, error: Callable[..., Any]) -> None:
    client = make(Settings(hosts=("127.0.0.1", "localhost", "[::1]")))
    for name in ("127.0.0.1:8000", "localhost", "[::1]:8000", "LOCALHOST:1"):
        assert client.get("/health", headers={"Host": name}).status_code == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "evil.example:8000", ""):
        response = client.get("/", headers={"Host": name})
        assert (response.status_code, error(response)["code"]) == (421, "wrong_host")


def test_other_origins_are_let_in_by_name_only(make: Any) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in make().options("/v1/search", headers=asked).headers
    client = make(Settings(origins=("https://a.example",)))
    assert client.options("/v1/search", headers=asked).headers["access-control-allow-origin"] == "https://a.example"
    asked["Origin"] = "https://b.example"
    assert "access-control-allow-origin" not in client.options("/v1/search", headers=asked).headers


def test_each_caller_has_a_rate(make: Any, error: Callable[..., Any]) -> None:
    keys = Keys([("a", "read", READ), ("b", "write", WRITE)])
    client = make(Settings(keys=keys, limits=Limits(per_minute=3)))
    codes = [client.get("/v1/models", headers=_bearer(READ)).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    response = client.get("/v1/models", headers=_bearer(READ))
    assert error(response)["code"] == "rate_limited"
    assert 1 <= int(response.headers["retry-after"]) <= 20
    assert client.get("/v1/models", headers=_bearer(WRITE)).status_code == 200
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/..%2fapp.py"])
def test_the_page_gives_its_own_files_only(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy + response.text.replace("http-equiv", "")
    assert response.headers["x-content-type-options"] == "nosniff"

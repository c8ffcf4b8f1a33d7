"""The project's own routes: numbers are the library's, writes last, errors have one shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rabtriever.index import Index
from rabtriever.serving import Settings
from rabtriever.serving.settings import Limits
from serving.doubles import SlowStudent, Student

OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 3, "rerank": 7},
    {"filter": "parity = 'even' and number < 20"},
    {"hybrid": True, "k": 5},
    {"hybrid": 1.5, "k": 5},
    {"hybrid": 1, "k": 5},
    {"hybrid": "ranks", "k": 5},
    {"threshold": 0.6},
    {"k": 5, "rerank": 3, "threshold": 0.2},
]


@pytest.fixture
def own(stored: Path, tmp_path: Path) -> Path:
    shutil.copytree(stored, tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("options", OPTIONS)
def test_search_gives_the_numbers_of_the_library(client: TestClient, stored: Path, options: dict[str, Any]) -> None:
    answer = client.post("/v1/search", json={"query": "number 7", **options}).json()
    with Index.open(stored, Student()) as index:
        hits = index.search("number 7", **{"k": 10, **options})
    assert [(one["id"], one["score"], one["stage"]) for one in answer["hits"]] == [
        (hit.id, hit.score, hit.stage) for hit in hits
    ]
    assert [one["metadata"] for one in answer["hits"]] == [hit.metadata for hit in hits]
    assert answer["query"] == "number 7"


def test_many_at_once_get_the_same_as_one_alone(make: Any, stored: Path) -> None:
    client = make(student=SlowStudent(seconds=0.05))
    queries = [f"question {n}" for n in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda text: client.post("/v1/search", json={"query": text, "k": 4}).json(), queries))
    with Index.open(stored, Student()) as index:
        for text, answer in zip(queries, answers, strict=True):
            assert answer["query"] == text
            assert [(one["id"], one["score"]) for one in answer["hits"]] == [
                (hit.id, hit.score) for hit in index.search(text, k=4)
            ]
    counted = {line.split()[0]: float(line.split()[1]) for line in _metrics(client) if not line.startswith("#")}
    assert counted['rabtriever_batch_texts_count{kind="query"}'] < 24
    assert counted['rabtriever_requests_total{method="POST",route="/v1/search",status="200"}'] == 24


def _metrics(client: TestClient) -> list[str]:
    return client.get("/metrics").text.splitlines()


def test_rerank_says_where_the_student_had_each_hit_and_what_it_cost(client: TestClient) -> None:
    plain = client.post("/v1/search", json={"query": "seven", "k": 8}).json()
    answer = client.post("/v1/search", json={"query": "seven", "k": 8, "rerank": 8}).json()
    places = {one["id"]: (rank, one["score"]) for rank, one in enumerate(plain["hits"], start=1)}
    assert {one["id"]: (one["student_rank"], one["student_score"]) for one in answer["hits"]} == places
    assert [one["id"] for one in answer["hits"]] != [one["id"] for one in plain["hits"]]
    assert plain["milliseconds"]["rerank"] < answer["milliseconds"]["rerank"]


def test_explain_takes_the_score_apart(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "seven", "k": 3, "explain": True}).json()
    assert len(answer["hits"]) == 3
    for hit in answer["hits"]:
        why = hit["explanation"]
        parts = [share["contribution"] for share in why["dimensions"]]
        assert why["log_odds"] == pytest.approx(hit["student_score"], abs=1e-4)
        assert why["probability"] == pytest.approx(hit["probability"], abs=1e-5)
        assert why["bias"] + sum(parts) + why["rest"] == pytest.approx(why["log_odds"], abs=1e-6)
        assert [abs(part) for part in parts] == sorted((abs(part) for part in parts), reverse=True)
        assert all(s["query"] * s["document"] == pytest.approx(s["contribution"]) for s in why["dimensions"])


def test_documents_are_stored_shown_found_and_deleted(make: Any, own: Path, error: Callable[..., Any]) -> None:
    client = make(path=own)
    new = {"id": "a/b c", "text": "find a sponge", "title": "Coke", "metadata": {"room": "kitchen", "n": [1, None]}}
    assert client.post("/v1/documents", json={"documents": [new]}).json() == {
        "added": 1,
        "updated": 0,
        "unchanged": 0,
        "documents": 41,
    }
    again = client.post("/v1/documents", json={"documents": [new, {"id": "d1", "text": "other"}]}).json()
    assert (again["added"], again["updated"], again["unchanged"]) == (0, 1, 1)
    assert client.get("/v1/documents/a%2Fb%20c").json() == new
    found = client.post("/v1/search", json={"query": "x", "filter": "room = 'kitchen'"}).json()["hits"]
    assert [hit["id"] for hit in found] == ["a/b c"]
    with Index.open(own, Student()) as index:
        assert index.get("a/b c").text == "find a sponge"
    assert client.delete("/v1/documents/a/b c").json() == {"deleted": 1, "documents": 40}
    for response in (client.get("/v1/documents/a/b c"), client.delete("/v1/documents/a/b c")):
        assert response.status_code == 404
        assert error(response)["code"] == "unknown_document"


def test_documents_are_stored_all_or_none(make: Any, own: Path, error: Callable[..., Any]) -> None:
    client = make(path=own)
    twice = [{"id": "x", "text": "one"}, {"id": "x", "text": "two"}]
    response = client.post("/v1/documents", json={"documents": twice})
    assert (response.status_code, error(response)["code"]) == (400, "bad_data")
    assert client.get("/v1/documents/x").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/search", {}, 422, "query: Field required"),
        ("/v1/search", {"query": "x", "quary": 1}, 422, "quary: Extra inputs"),
        ("/v1/search", {"query": "x", "k": "3"}, 422, "k: Input should be a valid integer"),
        ("/v1/search", {"query": "x", "k": 0}, 422, "greater than or equal to 1"),
        ("/v1/search", {"query": " "}, 400, "not empty"),
        ("/v1/search", {"query": "x", "filter": "number <"}, 400, "filter"),
        ("/v1/search", {"query": "x", "filter": "nummer < 3"}, 400, "nummer"),
        ("/v1/search", {"query": "x", "k": 201}, 413, "more than 200"),
        ("/v1/search", {"query": "x", "rerank": 201}, 413, "more than 200"),
        ("/v1/search", {"query": "x" * 100_001}, 413, "more than 100000"),
        ("/v1/documents", {"documents": []}, 422, "documents"),
        ("/v1/documents", {"documents": [{"id": "a\n", "text": ""}]}, 400, "id"),
        ("/v1/documents", {"documents": [{"id": str(n), "text": "x"} for n in range(257)]}, 413, "more than 256"),
        ("/v1/nothing", {}, 404, "nothing at this path"),
        ("/health", {}, 405, "does not take this method"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    client: TestClient, error: Callable[..., Any], path: str, body: dict[str, Any], status: int, message: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    assert message in error(response)["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", b'{"query": "\\ud800"}'),
        ("/v1/search", b'{"query": "x", "filter": "a = \'\\ud800\'"}'),
        ("/v1/documents", b'{"documents": [{"id": "a", "text": "\\udfff"}]}'),
        ("/v1/documents", b'{"documents": [{"id": "a", "text": "b", "metadata": {"\\udfff": 1}}]}'),
        ("/v1/embeddings", b'{"input": ["fine", "\\ud800"], "input_type": "query"}'),
        ("/v1/rerank", b'{"query": "x", "documents": ["fine", "\\ud800"]}'),
        ("/rerank", b'{"query": "x", "texts": ["\\ud800"]}'),
    ],
)
def test_what_is_no_unicode_is_refused(client: TestClient, error: Callable[..., Any], path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, error(response)["code"]) == (422, "invalid")


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"nul", b'{"query": "\\ud800"}'])
def test_bodies_that_are_no_json_are_refused(client: TestClient, error: Callable[..., Any], body: bytes) -> None:
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert error(response)["message"]


def test_a_form_of_another_page_writes_nothing(client: TestClient) -> None:
    body = b'{"documents": [{"id": "x", "text": "y"}]}'
    assert client.post("/v1/documents", content=body, headers={"Content-Type": "text/plain"}).status_code == 422
    assert client.get("/v1/documents/x").status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_refused_however_they_come(make: Any, error: Callable[..., Any], chunked: bool) -> None:
    client = make(Settings(limits=Limits(body_bytes=1000)))
    body = b'{"query": "' + b"x" * 2000 + b'"}'
    content = iter([body[:500], body[500:]]) if chunked else body
    response = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, error(response)["code"]) == (413, "request_too_large")


def test_requests_beyond_the_bound_are_sent_away_and_late_ones_given_up(make: Any, error: Callable[..., Any]) -> None:
    client = make(Settings(limits=Limits(requests=2, seconds=0.6)), SlowStudent(seconds=1.0))
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda n: client.post("/v1/search", json={"query": f"q{n}"}), range(6)))
    codes = sorted(response.status_code for response in responses)
    assert codes == [429, 429, 429, 429, 504, 504]
    assert all(int(r.headers["retry-after"]) >= 1 for r in responses if r.status_code == 429)
    assert {error(response)["code"] for response in responses} == {"busy", "timeout"}


def test_health_and_ready_tell_the_truth(make: Any, error: Callable[..., Any]) -> None:
    class Broken(Student):
        broken = True

        def encode_query(self, texts: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return super().encode_query(texts)

    student = Broken()
    client = make(student=student)
    assert client.get("/ready").json()["status"] == "ready"
    for _ in range(4):
        response = client.post("/v1/search", json={"query": "secret words"})
        assert (response.status_code, error(response)["code"]) == (500, "model_failed")
    response = client.get("/ready")
    assert (response.status_code, error(response)["code"]) == (503, "failing")
    assert client.get("/health").json()["status"] == "healthy"
    student.broken = False
    assert client.get("/ready").json() == {"status": "ready", "documents": 40, "queued_texts": 0, "rationales": False}


def test_nan_from_the_model_is_a_fault_and_no_answer(make: Any, error: Callable[..., Any]) -> None:
    class NotANumber(Student):
        def encode_query(self, texts: Any) -> Any:
            return super().encode_query(texts) * float("nan")

    response = make(student=NotANumber()).post("/v1/search", json={"query": "secret words"})
    assert (response.status_code, error(response)["code"]) == (500, "not_finite")
    assert "secret" not in response.text

"""The official clients of other services, unmodified, talk to a server that was really started."""

from __future__ import annotations

import signal
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rabtriever.index.records import sigmoid
from serving.doubles import PairTeacher, Student
from serving.server import Running, double, started

cohere = pytest.importorskip("cohere")
openai = pytest.importorskip("openai")

TEXTS = ["find a sponge", "close the drawer", "bring a glass of water"]
QUERY = "I spilled my coke"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@pytest.mark.parametrize("kind", [None, "document", "query"])
def test_openai_embeddings(client: Any, encoding: str | None, kind: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    extra = {} if kind is None else {"extra_body": {"input_type": kind}}
    answer = client.embeddings.create(model="rabtriever", input=TEXTS, **options, **extra)
    found = [
        np.frombuffer(b64decode(one.embedding), "<f4") if isinstance(one.embedding, str) else one.embedding
        for one in answer.data
    ]
    encode = Student().encode_query if kind == "query" else Student().encode_document
    np.testing.assert_allclose(found, encode(TEXTS), rtol=1e-6)
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert answer.usage.total_tokens == sum(len(text.split()) for text in TEXTS) + 3 * (2 if kind == "query" else 1)


def test_openai_one_text_models_and_errors(client: Any) -> None:
    answer = client.embeddings.create(model="rabtriever", input="find a sponge", dimensions=16)
    np.testing.assert_allclose(answer.data[0].embedding, Student().encode_document(["find a sponge"])[0], rtol=1e-6)
    assert [model.id for model in client.models.list()] == ["rabtriever"]
    with pytest.raises(openai.BadRequestError, match="16 dimensions"):
        client.embeddings.create(model="rabtriever", input="x", dimensions=8)
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.embeddings.create(model="text-embedding-3-small", input="x")
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(model="rabtriever", input=[[1, 2, 3]])


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_rerank(server: Running, version: int) -> None:
    make = cohere.Client if version == 1 else cohere.ClientV2
    client = make(api_key="any", base_url=server.url)
    answer = client.rerank(model="rabtriever", query=QUERY, documents=TEXTS, top_n=2)
    scores = PairTeacher().score(QUERY, TEXTS)
    order = sorted(range(3), key=lambda place: -scores[place])[:2]
    assert [one.index for one in answer.results] == order
    assert [one.relevance_score for one in answer.results] == pytest.approx([sigmoid(scores[i]) for i in order])
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)


def test_jina_and_text_embeddings_inference_shapes(server: Running) -> None:
    scores = PairTeacher().score(QUERY, TEXTS)
    order = sorted(range(3), key=lambda place: -scores[place])
    body = {"query": QUERY, "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]], "return_documents": True}
    results = httpx.post(f"{server.url}/v1/rerank", json=body).json()["results"]
    assert [(one["index"], one["document"]["text"]) for one in results] == [(place, TEXTS[place]) for place in order]

    body = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True, "truncate": True}
    results = httpx.post(f"{server.url}/rerank", json=body).json()
    assert [(one["index"], one["text"]) for one in results] == [(place, TEXTS[place]) for place in order]
    assert [one["score"] for one in results] == pytest.approx([float(scores[place]) for place in order])
    plain = httpx.post(f"{server.url}/rerank", json={"query": QUERY, "texts": TEXTS}).json()
    assert [one["score"] for one in plain] == pytest.approx([sigmoid(one["score"]) for one in results])
    assert "text" not in plain[0]


def test_the_log_holds_no_texts(server: Running, client: Any) -> None:
    client.embeddings.create(model="rabtriever", input="confidential sponge")
    httpx.post(f"{server.url}/v1/search?q=confidential", json={"query": "confidential", "filter": "oops confidential"})
    end = time.monotonic() + 10
    while "/v1/search" not in {line["route"] for line in server.log}:  # its line follows the answer
        assert time.monotonic() < end
        time.sleep(0.02)
    lines = server.log
    assert {line["route"] for line in lines} >= {"/v1/embeddings", "/v1/search"}
    assert {"time", "level", "message", "event", "request", "method", "status", "ms", "caller"} <= set(lines[-1])
    assert not any("confidential" in str(line) for line in lines)


def test_a_stop_finishes_what_was_accepted(stored: Path, tmp_path: Path) -> None:
    with started(double(stored, 1.0), tmp_path / "log") as server, ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(httpx.post, f"{server.url}/v1/search", json={"query": f"q{n}"}, timeout=60) for n in range(4)
        ]
        end = time.monotonic() + 30
        while 'rabtriever_pending_requests{pool="read"} 4.0' not in httpx.get(f"{server.url}/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert server.stop() == 0
        assert [one.result().status_code for one in asked] == [200] * 4
        assert [line["message"] for line in server.log if line["event"] == "stopped"] == ["stopped"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health")


def test_a_client_that_leaves_is_no_longer_worked_for(stored: Path, tmp_path: Path) -> None:
    with started(double(stored, 0.5), tmp_path / "log") as server:
        for n in range(20):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}/v1/search", json={"query": f"q{n}"}, timeout=0.02)
        answer = httpx.post(f"{server.url}/v1/search", json={"query": "last"}, timeout=60)
        assert answer.status_code == 200
        # All twenty would have taken ten seconds, one after the other or not: each is asked after the last was left.
        assert answer.json()["milliseconds"]["search"] < 5000
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'rabtriever_pending_requests{pool="read"} 0.0' in metrics
        assert server.stop(signal.SIGINT) == 0

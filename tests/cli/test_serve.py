"""``rabtriever serve`` from start to end, on a tiny random model."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from cli.runner import Cli
from index.doubles import numbered
from rabtriever.index import Index
from rabtriever.serving import Service, create_app
from serving.doubles import Student

QUERIES = [f"what now, number {n}? " * (1 + n % 5) for n in range(12)]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with Index.create(tmp_path / "index", Student()) as index:
        index.add(numbered(0, 3))
    return tmp_path / "index"


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student and an index of its vectors."""
    import torch

    from rabtriever import Reranker, Retriever
    from rabtriever.predictor import Predictor, PredictorConfig

    folder = tmp_path_factory.mktemp("served")
    teacher = Reranker.from_pretrained(tiny_folder("llama"), dtype="float32")
    torch.manual_seed(0)
    student = Retriever(teacher, Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False)))
    student.save_pretrained(folder / "student")
    with Index.create(folder / "index", student) as index:
        index.add([(f"d{n}", f"skill number {n} " + "with many words " * (n % 7)) for n in range(20)])
    return folder


def test_a_real_model_gives_its_own_numbers_alone_or_among_others(model: Path) -> None:
    from rabtriever import Retriever

    student = Retriever.from_pretrained(model / "student", dtype="float32")
    with Index.open(model / "index", student) as index:
        expected = {text: index.search(text, k=5, rerank=4) for text in QUERIES}
        vectors = student.encode_query(QUERIES)

    with TestClient(create_app(Service(model / "index", student))) as client, ThreadPoolExecutor(12) as pool:

        def ask(text: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.post("/v1/search", json={"query": text, "k": 5, "rerank": 4}).json()[
                "hits"
            ]
            return found

        for answers in (list(pool.map(ask, QUERIES)), [ask(text) for text in QUERIES[:3]]):
            for text, hits in zip(QUERIES, answers, strict=False):
                assert [hit["id"] for hit in hits] == [hit.id for hit in expected[text]]
                assert [hit["score"] for hit in hits] == pytest.approx(
                    [hit.score for hit in expected[text]], rel=1e-4, abs=1e-4
                )
        body = {"input": QUERIES, "input_type": "query", "model": "student"}
        answer = client.post("/v1/embeddings", json=body).json()
        np.testing.assert_allclose([one["embedding"] for one in answer["data"]], vectors, rtol=1e-4, atol=1e-4)
        read = sum(len(student.reranker.prompt.query_ids(text)) for text in QUERIES)
        assert answer["usage"]["prompt_tokens"] == read


def test_the_verb_serves_until_it_is_told_to_stop(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rabtriever.serving", "uvicorn.error"):  # which the verb sends to this test's stderr
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers: list[httpx.Response] = []

    def use() -> None:
        try:
            for _ in range(600):
                with suppress(httpx.TransportError):
                    answers.append(httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60))
                    break
                time.sleep(0.1)
            body = {"query": QUERIES[0], "k": 5, "rerank": 4}
            answers.append(httpx.post(f"http://127.0.0.1:{port}/v1/search", json=body, timeout=60))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use)
    user.start()
    ran = cli("serve", model / "index", "--port", port, "--json")
    user.join()
    assert ran.code == 0
    assert ran.json == {"url": f"http://127.0.0.1:{port}", "index": str(model / "index"), "documents": 20}
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(answers[1].json()["hits"]) == 5
    assert '"route": "/v1/search", "status": 200' in ran.err
    assert QUERIES[0] not in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "no API keys are given"),
        (["--host", "192.0.2.1", "--keys", "KEYS"], "cannot listen on 192.0.2.1:0"),
        (["--keys", "EMPTY"], "no API key in the file"),
        (["--keys", "NOWHERE"], "no such file"),
        (["--rerank-with", "NOWHERE"], "NOWHERE"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(
    cli: Cli, index: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "KEYS").write_text("write all 0123456789abcdef")
    (tmp_path / "EMPTY").write_text("\n")
    named = [str(tmp_path / word) if word.isupper() else word for word in options]
    ran = cli("serve", index, "--port", 0, *named, "--json")
    assert ran.code == 2
    assert message in ran.error["message"]


def test_no_index_and_a_port_in_use_are_told_before_a_model_is_loaded(cli: Cli, index: Path, tmp_path: Path) -> None:
    ran = cli("serve", tmp_path / "nothing", "--port", 0, "--json")
    assert (ran.code, ran.error["code"]) == (2, "no_index")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = cli("serve", index, "--port", taken.getsockname()[1], "--json")
    assert ran.code == 2
    assert "already in use" in ran.error["message"]

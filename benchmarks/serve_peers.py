"""Requests a second: an index served by Rabtriever, as it is and compiled, and sentence-transformers behind FastAPI.

    rabtriever export MODEL compiled --to openvino
    rabtriever export MODEL peer --to sentence-transformers
    python benchmarks/serve_peers.py INDEX --compiled compiled --peer peer --queries queries.txt -o serving.json

The peer is the simplest application: it encodes each request's query and multiplies it with the documents' vectors. All
three have the same weights, compute in the same dtype and answer over HTTP; they are asked in turn, in rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from serve import measure

PEER = """
import json, sys
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

folder, texts, dtype, port = sys.argv[1:]
ids, contents = json.load(open(texts))
model = SentenceTransformer(folder, device="cpu").to(getattr(torch, dtype))
documents = model.encode_document(contents, convert_to_numpy=False, convert_to_tensor=True).float().numpy()
app = FastAPI()


@app.post("/v1/search")
def search(body: dict):
    query = model.encode_query([body["query"]], convert_to_numpy=False, convert_to_tensor=True).float().numpy()
    scores = (query @ documents.T)[0]
    best = np.argsort(-scores)[: body["k"]]
    return {"hits": [{"id": ids[place], "score": float(scores[place])} for place in best]}


uvicorn.run(app, port=int(port), access_log=False)
"""


@contextmanager
def started(command: list[str], log: Path) -> Iterator[str]:
    """A server's address, once it answers; ``PORT`` in the command stands for its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen([str(port) if part == "PORT" else part for part in command], stdout=out, stderr=out)
        try:
            while not _answers(url):
                if process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.post(f"{url}/v1/search", json={"query": "hello", "k": 1}, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--compiled", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True, help="a file with a query on each line")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    serve = [
        sys.executable,
        "-m",
        "rabtriever",
        "serve",
        str(options.index),
        "--port",
        "PORT",
        "--dtype",
        options.dtype,
    ]
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(_documents(options.index)))
        peer = [sys.executable, "-c", PEER, str(options.peer), str(texts), options.dtype, "PORT"]
        servers = {
            "rabtriever": serve,
            "rabtriever, compiled": [*serve, "--model", str(options.compiled)],
            "sentence-transformers behind FastAPI": peer,
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, command in servers.items():
                with started(command, Path(folder) / "log") as url:
                    print(name, flush=True)
                    asked = SimpleNamespace(url=url, rerank=0, tolerance=float("inf"), process=None, **vars(options))
                    found[name] += asyncio.run(measure(asked))
    if options.output:
        options.output.write_text(json.dumps({"dtype": options.dtype, "servers": found}, indent=1) + "\n")


def _documents(path: Path) -> tuple[list[str], list[str]]:
    from rabtriever import Index

    with Index.open(path) as index:
        documents = list(index.documents())
    return [document.id for document in documents], [document.content for document in documents]


if __name__ == "__main__":
    main()

"""Load on a running server: requests a second, p50, p95, p99 and 429s for several numbers of clients.

    rabtriever serve INDEX --port 8000 --dtype float32 &
    python benchmarks/serve.py http://127.0.0.1:8000 --queries queries.txt --clients 1 8 64

Each client asks one query after the other over a connection of its own. Before the load every query is asked once,
alone; every later answer must have the same hits, with scores equal to ``--tolerance``. Run it on a quiet machine.
With ``--process PID`` the server's memory is watched too: after a tenth of the time, when all buffers have their size,
it may not grow by more than ``--growth`` megabytes until the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

Expected = dict[str, list[tuple[str, float]]]


@dataclass
class Tally:
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    wrong: int = 0
    largest: float = 0.0

    def row(self, clients: int, wall: float) -> dict[str, Any]:
        times = 1000 * np.array(self.seconds or [np.nan])
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        return {
            "clients": clients,
            "answered": len(self.seconds),
            "per_second": round(len(self.seconds) / wall, 1),
            "p50_ms": round(float(p50), 1),
            "p95_ms": round(float(p95), 1),
            "p99_ms": round(float(p99), 1),
            "refused_429": self.refused,
            "failed": self.failed,
            "wrong": self.wrong,
            "largest_difference": float(f"{self.largest:.2g}"),
        }


async def ask(http: httpx.AsyncClient, query: str, rerank: int) -> tuple[int, list[tuple[str, float]]]:
    response = await http.post("/v1/search", json={"query": query, "k": 5, "rerank": rerank})
    hits = response.json()["hits"] if response.status_code == 200 else []
    return response.status_code, [(hit["id"], hit["score"]) for hit in hits]


def difference(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> float:
    """By how much scores differ from the expected ones, by rank and by document."""
    if len(found) != len(expected):
        return float("inf")
    scores = dict(expected)
    by_rank = [abs(score - want) for (_, score), (_, want) in zip(found, expected, strict=True)]
    by_document = [abs(score - scores.get(id, score)) for id, score in found]
    return max(by_rank + by_document, default=0.0)


async def client(url: str, number: int, expected: Expected, until: float, tally: Tally, options: Any) -> None:
    rng, queries = random.Random(number), sorted(expected)
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        while time.perf_counter() < until:
            query = rng.choice(queries)
            began = time.perf_counter()
            try:
                status, found = await ask(http, query, options.rerank)
            except httpx.HTTPError:
                tally.failed += 1
                continue
            if status == 429:
                tally.refused += 1
                await asyncio.sleep(0.05)
            elif status != 200:
                tally.failed += 1
            else:
                tally.seconds.append(time.perf_counter() - began)
                apart = difference(found, expected[query])
                tally.largest = max(tally.largest, apart)
                tally.wrong += apart > options.tolerance


async def watch(process: psutil.Process, samples: list[tuple[float, float]]) -> None:
    """Seconds since the start and megabytes of memory that are the process's own, every two seconds."""
    began = time.perf_counter()
    while True:
        samples.append((time.perf_counter() - began, process.memory_full_info().uss / 2**20))
        await asyncio.sleep(2)


def memory(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """What a process's memory did after the first tenth of the time: medians of the first and the last third of it."""
    minutes = {int(second // 60): round(mb, 1) for second, mb in samples}
    settled = [mb for second, mb in samples if second >= samples[-1][0] / 10]
    third = max(1, len(settled) // 3)
    early, late = float(np.median(settled[:third])), float(np.median(settled[-third:]))
    facts = {"mb_early": early, "mb_late": late, "mb_growth": late - early, "mb_most": max(mb for _, mb in samples)}
    return {name: round(mb, 1) for name, mb in facts.items()} | {"mb_by_minute": list(minutes.values())}


async def measure(options: Any) -> list[dict[str, Any]]:
    queries = [line.strip() for line in options.queries.read_text("utf-8").splitlines() if line.strip()]
    async with httpx.AsyncClient(base_url=options.url, timeout=120) as http:
        expected = {query: (await ask(http, query, options.rerank))[1] for query in queries}
    rows = []
    for clients in options.clients:
        tally, began = Tally(), time.perf_counter()
        until = began + options.seconds
        samples: list[tuple[float, float]] = []
        watching = asyncio.create_task(watch(psutil.Process(options.process), samples)) if options.process else None
        await asyncio.gather(*(client(options.url, n, expected, until, tally, options) for n in range(clients)))
        rows.append(tally.row(clients, time.perf_counter() - began))
        if watching is not None:
            watching.cancel()
            rows[-1] |= memory(samples)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--queries", type=Path, required=True, help="A file with a query on each line.")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=20.0, help="How long each number of clients is kept up.")
    parser.add_argument("--rerank", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="Give 0.25 for bfloat16, which rounds by batch.")
    parser.add_argument("--process", type=int, metavar="PID", help="The server's, to watch its memory.")
    parser.add_argument("--growth", type=float, default=20.0, metavar="MB", help="What it may grow by.")
    options = parser.parse_args()
    rows = asyncio.run(measure(options))
    if any(row.get("mb_growth", 0.0) > options.growth for row in rows):
        raise SystemExit("the server's memory grew")
    if any(row["wrong"] or row["failed"] for row in rows):
        raise SystemExit("there were wrong or failed answers")


if __name__ == "__main__":
    main()

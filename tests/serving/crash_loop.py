"""Kill a server at random moments of writing, again and again, and see that nothing acknowledged is lost.

    python tests/serving/crash_loop.py --rounds 100

Each round starts a server; four clients store and delete documents of their own, one request after the other, until
the server is killed (SIGKILL). Then the index must hold what was acknowledged, and of the one request of each client
that was under way all or nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rabtriever.data import Document
from rabtriever.index import Index
from serving.doubles import Student
from serving.server import double, started

_CLIENTS = 4
_LONGEST = 1.5

State = dict[str, str]


def _write(url: str, client: int, seed: int, state: State, begun: threading.Event) -> tuple[State, State]:
    """Write until the server is gone; what was acknowledged, and what else the last request may have left."""
    rng, possible = random.Random(f"{seed} {client}"), dict(state)
    with httpx.Client(base_url=url, timeout=60) as http:
        while True:
            ids = [f"c{client}-{n}" for n in rng.sample(range(60), rng.randint(1, 8))]
            if rng.random() < 0.2 and state:
                gone = rng.choice(sorted(state))
                possible = {id: text for id, text in state.items() if id != gone}
                call = lambda gone=gone: http.delete(f"/v1/documents/{gone}")  # noqa: E731
            else:
                texts = {id: f"text {rng.random()}" for id in ids}
                possible = state | texts
                body = {"documents": [{"id": id, "text": text} for id, text in texts.items()]}
                call = lambda body=body: http.post("/v1/documents", json=body)  # noqa: E731
            try:
                answer = call()
            except httpx.TransportError:
                return state, possible
            assert answer.status_code == 200, answer.text
            state = possible
            begun.set()


def one_round(folder: Path, states: list[State], seed: int) -> list[State]:
    """Start, write, kill, look; return what the index holds of each client.

    Raises:
        AssertionError: Something acknowledged is lost, or half there.
    """
    with started(double(folder), folder.parent / "log") as server, ThreadPoolExecutor(_CLIENTS) as pool:
        begun = threading.Event()
        writers = [pool.submit(_write, server.url, n, seed, states[n], begun) for n in range(_CLIENTS)]
        begun.wait(60)
        time.sleep(random.Random(seed).random() * _LONGEST)
        server.process.kill()
        ended = [writer.result() for writer in writers]
        server.process.wait()
    with Index.open(folder, Student()) as index:
        assert index.check().clean
        stored: list[Document] = list(index.documents())
    found = []
    for client, (acknowledged, possible) in enumerate(ended):
        own = {one.id: one.text for one in stored if one.id.startswith(f"c{client}-")}
        assert own in (acknowledged, possible), f"client {client}: {len(own)} of {len(acknowledged)} documents"
        found.append(own)
    return found


def main() -> None:
    """Run rounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        Index.create(folder, Student()).close()
        states: list[State] = [{} for _ in range(_CLIENTS)]
        for seed in range(rounds):
            states = one_round(folder, states, seed)
            print(f"round {seed + 1}: {sum(map(len, states))} documents, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

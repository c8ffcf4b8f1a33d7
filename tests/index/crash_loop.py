"""Kill a process at random moments of writing, again and again, and see that nothing acknowledged is lost.

    python tests/index/crash_loop.py --rounds 1000

Each round starts a process that adds, upserts, deletes, compacts and builds the cache at random, and says before each
step what it is about to do and after it that it is done. It is killed (SIGKILL) some time later. Then the index must
hold exactly what was acknowledged, and of the step under way whole batches or nothing; ``check`` must be clean, and
every document must be found.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from index.doubles import HashingStudent
from rabtriever.data import Document
from rabtriever.index import Index

_BATCH = 10
_KINDS = ["add", "add", "upsert", "upsert", "delete", "compact", "accelerate"]
_LONGEST = 1.5
"""Seconds from the first step to the last moment at which a process is killed."""

State = dict[str, str]


def _draw(rng: random.Random) -> dict[str, Any]:
    ids = rng.sample(range(200), rng.randint(1, 40))
    return {"kind": rng.choice(_KINDS), "ids": ids, "salt": rng.randint(0, 3)}


def _documents(step: dict[str, Any], ids: list[int]) -> list[Document]:
    return [Document(f"k{i}", f"text {i} {step['salt']}") for i in ids]


def work(folder: Path) -> None:
    """Wait for a seed on stdin, then write for ever; told to nobody but the parent, line by line."""
    import lancedb  # noqa: F401  # before the seed: the next process gets ready while this one is looked at

    rng = random.Random(int(sys.stdin.readline()))
    index = Index.open(folder, HashingStudent())
    while True:
        step = _draw(rng)
        print(json.dumps({"begin": step}), flush=True)
        kind, documents = step["kind"], _documents(step, step["ids"])
        if kind == "add":
            index.add(documents, batch_size=_BATCH)
        elif kind == "upsert":
            index.upsert(documents)
        elif kind == "delete":
            index.delete([document.id for document in documents])
        elif kind == "compact":
            index.compact()
        else:
            index.accelerate()
        print(json.dumps({"done": step}), flush=True)


def after(state: State, step: dict[str, Any]) -> list[State]:
    """Every state that a step may be left in, the last of them when it is done."""
    documents = _documents(step, step["ids"])
    states = [state]
    if step["kind"] == "delete":
        gone = {document.id for document in documents}
        states.append({id: text for id, text in state.items() if id not in gone})
    elif step["kind"] == "upsert":
        states.append(state | {document.id: document.text for document in documents})
    elif step["kind"] == "add":
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            states.append(states[-1] | {document.id: document.text for document in batch})
    return states


def start(folder: Path) -> subprocess.Popen[str]:
    """A process that is about to write."""
    command, pipe = [sys.executable, __file__, "--work", str(folder)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def one_round(folder: Path, process: subprocess.Popen[str], state: State, seed: int) -> tuple[State, str]:
    """Let it write, kill it, look; return what the index holds, and what it was killed at.

    Raises:
        AssertionError: Something was lost, is half there, or is not found.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seed}\n")
    process.stdin.flush()
    lines = [process.stdout.readline()]
    time.sleep(random.Random(seed).random() * _LONGEST)
    process.kill()
    rest, problems = process.communicate()
    lines += rest.split("\n")[:-1]
    assert process.returncode == -9, problems
    possible, kind = [state], "nothing"
    for line in map(json.loads, lines):
        if "begin" in line:
            possible, kind = after(possible[-1], line["begin"]), line["begin"]["kind"]
        else:
            possible = possible[-1:]
    index = Index.open(folder, HashingStudent())
    found = {document.id: document.text for document in index.documents()}
    assert found in possible, f"killed at {kind}: {len(found)} documents, {len(possible[-1])} expected"
    report = index.check()
    assert report.clean, report.problems
    assert {hit.id for hit in index.search("q", k=len(found) + 1)} == set(found)
    return found, kind


def rounds(path: Path, count: int, seed: int = 0) -> Iterator[tuple[State, str]]:
    """Make an index and kill so many of its writers, each of which gets ready while the one before is looked at."""
    Index.create(path, HashingStudent())
    state: State = {}
    ready = start(path)
    try:
        for number in range(count):
            process, ready = ready, start(path)
            state, kind = one_round(path, process, state, seed + number)
            yield state, kind
    finally:
        ready.kill()
        ready.communicate()


def main() -> None:
    """Run rounds until there were enough."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work)
    killed: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (state, kind) in enumerate(rounds(Path(folder) / "index", arguments.rounds, arguments.seed)):
            killed[kind] = killed.get(kind, 0) + 1
            print(f"{number + 1} kills, {len(state)} documents; killed at {killed}", flush=True)


if __name__ == "__main__":
    main()

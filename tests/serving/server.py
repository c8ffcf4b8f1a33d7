"""A server in a process of its own, with a double for its model or with a real one.

    python tests/serving/server.py INDEX [SECONDS]

serves an index of the double's, each batch of queries taking so many seconds, and prints the URL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

_START_SECONDS = 120


class Running:
    """A server's process and address."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self._log = process, log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server did not start: {log.read_text()}"
        self.told: dict[str, Any] = json.loads(line)
        self.url: str = self.told["url"]

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; tell the exit code."""
        self.process.send_signal(number)
        return self.process.wait(_START_SECONDS)


@contextmanager
def started(command: list[str], log: Path) -> Iterator[Running]:
    """Start a server; at the end it is killed if it still runs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    try:
        yield Running(process, log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def double(index: Path, seconds: float = 0.0) -> list[str]:
    """The command of a server with a double."""
    return [sys.executable, __file__, str(index), str(seconds)]


def _main(path: Path, seconds: float) -> None:
    from rabtriever.serving.logs import log_to_stderr
    from rabtriever.serving.run import listen, serve
    from rabtriever.serving.service import Service
    from rabtriever.serving.settings import Settings
    from serving.doubles import SlowStudent

    began = time.monotonic()
    log_to_stderr()
    place = listen("127.0.0.1", 0)
    with place, Service(path, SlowStudent(seconds=seconds)) as service:
        told = {"url": f"http://127.0.0.1:{place.getsockname()[1]}", "seconds": time.monotonic() - began}
        serve(service, Settings(), place, lambda: print(json.dumps(told), flush=True))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)

"""``rabtriever train`` in processes of its own, to be stopped and killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

_SECONDS = 900
"""Long enough for a machine that does other things as well."""


class Training:
    """A training that was started; ``launcher`` stands between Python and ``-m rabtriever``."""

    def __init__(
        self, data: Path, model: Path, settings: Path, cache: Path, *more: str, launcher: tuple[str, ...] = ()
    ):
        self.model = model
        train = ["-m", "rabtriever", "train", str(data), "-o", str(model), "--config", str(settings), *more]
        self.process = subprocess.Popen(
            [sys.executable, *launcher, *train],
            env={**os.environ, "RABTRIEVER_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, pattern: str) -> None:
        """Until a file of the run's state appears."""
        end = time.monotonic() + _SECONDS
        while not any((self.model / "runs").glob(pattern)):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send a signal, if any; the exit code, stdout and stderr."""
        if number is not None:
            self.process.send_signal(number)
        said = self.process.communicate(timeout=_SECONDS)
        assert "Traceback" not in said[1]
        return self.process.returncode, *said

"""Carries out deploy/Dockerfile without a container engine: its steps, its user, its command and its health check.

    sudo python scripts/check_container.py

In a scratch folder that takes the image's place: COPY copies, RUN runs with the `pip` of a new virtual environment, CMD
starts the server as a user without rights over an index of two documents, HEALTHCHECK must succeed within its
start period, and STOPSIGNAL must end it with exit code 0. What an engine adds (the base image, its network and volumes)
is not checked. Needs root for the other user, a Python that this user can read too, and about five minutes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SKILLS = '{"_id": "a", "text": "pick up the mug"}\n{"_id": "b", "text": "turn on the desk lamp"}\n'
NOBODY = 65534


class Image:
    """The folder that takes the image's place."""

    def __init__(self, place: Path) -> None:
        self.app, self.data, self.home = (place / name for name in ("app", "data", "home"))
        for folder in (self.app, self.data, self.home):
            folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", place / "python"], check=True)
        path = f"{place / 'python' / 'bin'}:{os.environ['PATH']}"
        passed = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "TORCH_INDEX"))}
        self.environment = {**passed, "PATH": path, "HOME": str(self.home)}

    def run(self, *command: str, shell: bool = False) -> None:
        """A step of the build, as root."""
        line = command[0] if shell else list(command)
        subprocess.run(line, shell=shell, cwd=self.app, env=self.environment, check=True)

    def as_user(self, *command: str) -> subprocess.Popen[str]:
        """A command of the container, as a user who owns nothing but the home and the data."""
        return subprocess.Popen(
            list(command),
            cwd=self.app,
            env=self.environment,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def give_to_user(self) -> None:
        """The home and the data belong to the user."""
        for folder in (self.home, self.data):
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's lines, with those that go on joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "deploy" / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def build(image: Image) -> tuple[list[str], list[str], int, signal.Signals]:
    """Carry out the steps; return CMD, the health check's command and start period, and the signal that stops."""
    command, health, period, stop = [], [], 0, signal.SIGTERM
    for word, rest in instructions():
        if word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                goal = image.app / target if target != "./" else image.app / Path(source).name
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, goal)
                else:
                    shutil.copy(ROOT / source, goal)
        elif word == "RUN" and not rest.startswith("useradd"):
            image.run(rest, shell=True)
        elif word == "CMD":
            command = json.loads(rest)
        elif word == "HEALTHCHECK":
            period = int(re.findall(r"--start-period=(\d+)s", rest)[0])
            health = json.loads(rest.partition("CMD ")[2])
        elif word == "STOPSIGNAL":
            stop = signal.Signals[rest]
    return command, health, period, stop


def check(image: Image) -> None:
    """Build, fill /data, start, ask for the health, stop."""
    command, health, period, stop = build(image)
    (image.data / "skills.jsonl").write_text(SKILLS)  # its user makes the index of them
    (image.data / "keys").write_text("read page a-key-for-the-container-check\n")
    image.give_to_user()
    corpus, index = image.data / "skills.jsonl", image.data / "index"
    made = image.as_user("rabtriever", "index", "robot-skills", str(corpus), "-o", str(index))
    said, _ = made.communicate()
    assert made.returncode == 0, said
    server = image.as_user(*(part.replace("/data", str(image.data)) for part in command))
    try:
        until = time.monotonic() + period
        while image.as_user(*health).wait():
            assert server.poll() is None, server.communicate()[0]
            assert time.monotonic() < until, "it is not healthy within its start period"
            time.sleep(1)
        print("healthy", flush=True)  # noqa: T201
        server.send_signal(stop)
        assert server.wait(60) == 0, server.communicate()[0]
    finally:
        server.kill()
    print("each step of the Dockerfile works")  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)  # noqa: PTH101
        check(Image(Path(scratch)))

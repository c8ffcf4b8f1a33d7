"""What encodes on a Ray cluster; on_a_cluster.py holds the tests, each of which runs in a process of its own here.

Ray ends the process that it serves, at once and without a word (`QuickExit` in its core), when it finds its own daemon
gone. In pytest's own process that would take the other tests along.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rabtriever.cluster import _parcels

FILE = Path(__file__).with_name("on_a_cluster.py")
NAMES = re.findall(r"^def (test_\w+)", FILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_on_a_cluster(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path}", f"{FILE}::{name}"]
    environment = {**os.environ, "RAY_worker_niceness": "0"}  # 15 by default: starved where other tests run
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)
        if done.returncode != 1 or re.search(r"\d (passed|failed|error)", done.stdout):  # it ended as pytest ends
            break
    assert done.returncode == 0, done.stdout + done.stderr


def test_parcels_hold_every_text_once_and_the_long_ones_first() -> None:
    texts = ["x" * (n * 997 % 5000) for n in range(300)]
    parcels = list(_parcels(texts))
    assert sorted(row for parcel in parcels for row in parcel) == list(range(300))
    lengths = [len(texts[row]) for parcel in parcels for row in parcel]
    assert lengths == sorted(lengths, reverse=True)
    assert len(parcels) > 5
    assert list(_parcels([])) == []

from __future__ import annotations

import os
from pathlib import Path

from index.crash_loop import rounds

_ROUNDS = int(os.environ.get("RABTRIEVER_CRASH_ROUNDS", "3"))


def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """A few kills; 50 in .ci/run, or as many as wanted with crash_loop.py."""
    assert len(list(rounds(tmp_path / "index", _ROUNDS))) == _ROUNDS

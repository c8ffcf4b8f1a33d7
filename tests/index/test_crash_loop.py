from __future__ import annotations

import os
from pathlib import Path

from index.crash_loop import one_round
from index.doubles import HashingStudent
from rabtriever.index import Index

_ROUNDS = int(os.environ.get("RABTRIEVER_CRASH_ROUNDS", "3"))


def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """A few kills; more with RABTRIEVER_CRASH_ROUNDS=50, or as many as wanted with crash_loop.py."""
    Index.create(tmp_path / "index", HashingStudent())
    state: dict[str, str] = {}
    for seed in range(_ROUNDS):
        state, _ = one_round(tmp_path / "index", state, seed)

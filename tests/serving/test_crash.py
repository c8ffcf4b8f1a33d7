from __future__ import annotations

import os
from pathlib import Path

from rabtriever.index import Index
from serving.crash_loop import one_round
from serving.doubles import Student

_ROUNDS = int(os.environ.get("RABTRIEVER_SERVER_CRASH_ROUNDS", "2"))


def test_a_killed_server_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """A few kills; more with RABTRIEVER_SERVER_CRASH_ROUNDS=50."""
    Index.create(tmp_path / "index", Student()).close()
    states: list[dict[str, str]] = [{} for _ in range(4)]
    for seed in range(_ROUNDS):
        states = one_round(tmp_path / "index", states, seed)
    assert any(states)

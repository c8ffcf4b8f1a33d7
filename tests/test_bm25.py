"""BM25 as a library among others."""

from __future__ import annotations

import os

import pytest

from rabtriever.bm25 import Bm25

_SETTING = "XLA_PYTHON_CLIENT_PREALLOCATE"


@pytest.mark.parametrize("chosen", [None, "true"])
def test_jax_is_kept_from_taking_a_gpus_memory_unless_its_user_says_so(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_SETTING, "")  # so that what Bm25 sets is undone after the test
    monkeypatch.delenv(_SETTING)
    if chosen:
        monkeypatch.setenv(_SETTING, chosen)
    Bm25(["find a sponge"])
    assert os.environ[_SETTING] == (chosen or "false")

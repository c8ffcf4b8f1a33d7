"""What the tests of stage III have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import Reranker
from toy_data import SHORT


@pytest.fixture(scope="module")
def teacher(tiny_folder: Callable[..., Path]) -> Reranker:
    """What it says is as learnable as what a trained one says."""
    return Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared where a test is not about the store."""
    return tmp_path_factory.mktemp("store")

"""An index that several modules begin with; those that need another define their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.index import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 1500))
    return index
